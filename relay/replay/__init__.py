"""Plays the calls of a captured trace through a running relay, and compares what it relayed with what the trace did."""

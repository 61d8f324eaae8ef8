"""Replay of captured calls through a running relay, compared with the trace.

A tool beside the relay: nothing that carries calls imports it. It plays both sides from the messages of the trace; what
the relay may change is asked of `relay.privacy`, not written down again.
"""

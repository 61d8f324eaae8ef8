"""Replay of captured calls through a running relay, compared with the trace."""

"""Sealing at rest: the keys, what binds a row to its sealed and proven columns."""

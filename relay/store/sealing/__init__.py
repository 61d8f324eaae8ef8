"""Sealing at rest: the keys, what binds a row to its sealed and proven columns.

Which rows have a proof, and how all are checked, is in `relay.store.ledger`; who may turn the key in `relay.service`.
"""

"""Sealing at rest: the keys, and the binding of a row to its sealed and proven columns.

Which rows have a proof, and how all are checked, is in `relay.store.ledger`; who may turn the key in `relay.service`.
"""

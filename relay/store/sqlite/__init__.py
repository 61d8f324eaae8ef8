"""The store in an SQLite file: how its journal writes, how a call is looked up.

Code that both databases share is in `relay.store` and its journal.
"""

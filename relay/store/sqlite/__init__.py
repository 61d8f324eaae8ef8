"""What a store in an SQLite file does differently: how its journal writes, how a call is looked up.

What both databases do alike is in `relay.store` and its journal.
"""

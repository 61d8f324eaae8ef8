"""The store on a PostgreSQL server: connections, journal, look-up with caps, and its nodes.

Imported only where the store is on a server. Code that both databases share is in `relay.store` and its journal.
"""

"""What a store on a PostgreSQL server does differently: connections, journal, look-up with caps, and its nodes.

Imported only where the store is on a server. What both databases do alike is in `relay.store` and its journal.
"""

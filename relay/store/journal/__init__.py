"""The journal: records written durably in order, the overflow log, and the attempts under way.

Code for one database is in `relay.store.sqlite` and `relay.store.postgres`.
"""

"""The journal: records written durably in order, the overflow log, and the attempts under way.

What the two databases do differently is in `relay.store.sqlite` and `relay.store.postgres`.
"""

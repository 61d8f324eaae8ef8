"""The backend's own tasks: follower, webhooks and their rules, recordings, timers, the ledger watch.

It works from committed records and the clock, and never holds up a call.
"""

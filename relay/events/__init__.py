"""What follows from committed records: the follower, webhooks, recordings, timers, the ledger watch.

Runs in the process beside the relay and never holds up a call. Rules of the service belong to `relay.service`.
"""

"""RFC 3261 and its neighbours: grammar, messages, transactions, dialogs, timers, digest, SDP.

Pure: messages, flows and `now` come in; bytes and values go out. Nothing here knows 700 numbers, parties or what
may cross from one side to the other.
"""

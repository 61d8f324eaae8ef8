"""Who is heard, and how much: bans, limits and fair shares, answers without state, overload shedding.

Pure. Decides from source addresses and counts before a call exists; rules of a business or a binding are in
`relay.policy`, sockets and their bounds in `relay.net`.
"""

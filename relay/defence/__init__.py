"""Defence against floods: bans, limits and fair shares, stateless answers, overload shedding.

Pure. Counts and rates are kept here for calls and business users too; whether a call goes on is decided in
`relay.policy`, sockets and their bounds are in `relay.net`.
"""

"""The SIP neighbours: targets and their health, quotas, digest authentication both ways, registrations.

Pure. Which peer a source address is, which peers reach a number, and the relay's own requests to them. What a call
does with a target is in `relay.call`; DNS is in `relay.net`.
"""

"""Sockets, DNS, TLS, rtpengine, the verification hook, and the driver that performs the engine's actions.

Nothing here reads a SIP message further than its framing. Decisions about calls belong to `relay.call` and
`relay.policy`.
"""

"""Sockets, DNS, TLS, rtpengine, hooks, the admin socket, spans, and the driver of the engine.

Also the backlog under overload, fair queues, the child process. A SIP message is read here no further than its
framing; decisions about calls belong to `relay.call` and `relay.policy`.
"""

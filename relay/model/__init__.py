"""Values that every layer shares: numbers, parties, bindings and routes, call records, decisions, settings, actions.

Pure: no socket, clock, random source or log. A value knows its own rules (what a 700 number is, which routes a
binding compiles to, which callers a peer may claim). The state of a call, peer or table does not belong here. `Outbox`
collects what the engine returns to the driver.
"""

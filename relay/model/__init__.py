"""Values that every layer shares: numbers, bindings and their routes, call records, decisions, settings.

Pure: no socket, clock, random source or log. A value knows its own rules (what a 700 number is, which routes a
binding compiles to). What needs a store, a peer or a message does not belong here.
"""

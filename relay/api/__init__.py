"""The HTTP API, one file a noun: its models and its routes. Authentication and middleware beside them.

A route parses, calls one function of `relay.service`, `relay.reports` or `relay.store`, and answers. Rules do not
belong here.
"""

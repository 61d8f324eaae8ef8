"""The HTTP API, a file for each noun, with its models and routes.

A route parses, calls one function of `relay.service`, `relay.reports`, `relay.events` or `relay.store`, and answers.
Rules do not belong here.
"""

"""The HTTP API, a file for each noun. Models of a noun's parts stand with the noun (keys with businesses).

A route parses, calls one function of `relay.service`, `relay.reports`, `relay.events` or `relay.store`, and answers.
Rules do not belong here.
"""

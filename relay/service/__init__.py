"""The number-protection service: businesses, numbers, bindings, groups, lists, keys, filings, retention.

The rules that commands and the API share, each inside a `UnitOfWork` of `relay.store`. Neither HTTP nor the
command line is known here.
"""

"""The number-protection service: businesses, numbers, bindings, CSV imports, groups, lists, keys, retention.

The rules that commands and the API share, each inside a `UnitOfWork` of `relay.store`. HTTP is not known here; a
refusal may name the command that helps.
"""

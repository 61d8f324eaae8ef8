"""Whether a call goes on: rules, caps, hours, quotas, signs of fraud.

Pure: takes what the store found and returns a `Route` or a `Refusal`. Reads no store and no clock; the bounds of the
relay itself are in `relay.defence`.
"""

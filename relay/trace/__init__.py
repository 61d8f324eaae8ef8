"""SIP messages of calls, kept and shown: the keeper of captures, HEP, the ladder in its forms.

The relay hands messages over by `relay.net.capture`; rows are in `relay.store.captures`; `relay.privacy.capture_mask`
masks what people may see.
"""

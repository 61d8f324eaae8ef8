"""What is kept of calls' SIP messages, and shown of it: the keeper of captures, HEP, the ladder in its forms.

The relay hands messages over by `relay.net.capture`; rows are in `relay.store.captures`; `relay.privacy.capture_mask`
masks what people may see.
"""

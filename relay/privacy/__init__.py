"""Allow-lists for everything that crosses from one side of a call to the other: headers, statuses, SDP, texts, records.

Pure. Messages of a call are written from the relay's own state; nothing is copied and stripped. The last search
before a message goes out is `relay.privacy.leak_check`; masking of the log is `relay.log`.
"""

"""What may cross from one side of a call to the other: headers, statuses, SDP and texts, by allow-list.

Pure. Every message to a party is written here from the relay's own state; nothing is copied and stripped. The last
search before a message goes out is `relay.call.leak_check`. Masking of the log is `relay.log`.
"""

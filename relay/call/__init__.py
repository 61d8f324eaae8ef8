"""Calls and text messages: the engine, the INVITE session, outbound attempts, legs, media, recovery.

Pure: `Engine` takes messages, answers and time, and returns actions (`relay.call.actions`). Whether a call may go on
is decided in `relay.policy`; what may cross is decided in `relay.privacy`.
"""

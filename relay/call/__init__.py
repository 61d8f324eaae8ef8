"""Calls and text messages: engine, admission, INVITE session, outbound attempts, legs, media, recovery.

Pure: `Engine` takes messages, answers and time, and returns actions (`relay.model.actions`). `admission` refuses what
needs no look-up; the rest is decided in `relay.policy`, and what may cross in `relay.privacy`.
"""

"""relay700: number protection with China's 700 numbers. The layers and their order are in ARCHITECTURE.md.

Here are the processes (`server`, `backend`) and what each has once: log, metrics, errors, the SIP service that carries
the calls, and its answers on the admin socket (`admin`). Whatever belongs to a subject is in its folder.
"""

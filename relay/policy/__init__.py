"""Whether a call goes on: rules, caps, hours, quotas, waits after refused attempts, signs of fraud.

Pure: `evaluate` turns a look-up result into a `Route` or a `Refusal`, `CallPolicy` counts what it granted. The hooks
are asked by `relay.call_hooks`. Limits on calls at once are enforced by the engine, the bounds of the relay itself are
in `relay.defence`.
"""

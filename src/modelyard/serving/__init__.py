"""The inference server: its own process, started as `python -m modelyard.serving`.

A plain ASGI application: `app` finds the route and who asks, `validate`, `predict` and `protocol` turn a body into
arrays and answers, `batch` runs what came in during one turn of the event loop at once, `log` keeps what was answered,
`limits` and `wire` keep a caller from taking too much, `server` binds the port, says so and drains at the end.
`following` puts the versions in place that the ledger wants, once `rehearsal` has tried them, `rollout` tries a
challenger beside the champion, `probation` takes back a champion that errs, `supervisor` keeps several processes on one
port.
"""

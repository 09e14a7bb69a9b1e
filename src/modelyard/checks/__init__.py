"""Claims about a model, held against evidence.

`metrics` says what is measured, `bootstrap` how sure that is, and one module a kind of check makes a `CheckResult` of
it: a `limit` on a metric, `beats` champion and baseline, the `gap` between `groups`, `repeatable`, `parity` and
`latency`. `profile` keeps what training looked like and `drift` compares new rows with it. `kinds` tells the planner
which of the `steps` to wire to what, `section` what stands in the file, and the `gate` stops a run.
"""

"""Which model answers where: aliases that move, and targets that answer.

`aliases` points champion and challenger at versions and back again, `steps` is what a run does at its end, `base` says
what a target is and `local` is the one on this machine: a process of its own, `python -m modelyard.serving`.
"""

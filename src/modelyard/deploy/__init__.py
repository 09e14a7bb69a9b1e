"""Which model answers where: aliases that move, and the process that answers.

`aliases` points champion and challenger at versions and back again, `steps` is what a run does at its end, `local` is
the command line of a server on this machine: a process of its own, `python -m modelyard.serving`.
"""

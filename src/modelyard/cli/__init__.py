"""The command line: one module a verb, parsing and printing only; what is done is done below.

Data goes to stdout, talk to stderr, `--json` gives data as JSON, and the exit code says how it ended
(see `modelyard --help`). `main.py` knows the verbs and turns errors into codes.
"""

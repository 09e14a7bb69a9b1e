"""What happened to a model in use: windows of its requests, drift against its profile, metrics once outcomes are known.

`window` reads the log that the server writes, `truth` adds outcomes to it, `watch` compares a window with the profile
in the bundle.
"""

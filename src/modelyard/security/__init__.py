"""Who made a bundle, and who may ask the server: keys, seals, tokens and roles.

`keys` holds the project's signing key, `seal` signs a folder of files and opens it again, `tokens` knows
the callers of the server and `roles` says what each of them may do. Import from these modules:
`from modelyard.security.seal import open_sealed`.
"""

"""The contract between an endpoint and those who call it; what a table has to keep to is `data.contract`.

`description` says in OpenAPI 3.1 what the endpoint takes and answers, out of `schemas` and `operations`. Everything
else is made of that one document: `clients` in Python and TypeScript, `diff` between two versions, `mock`. `consumer`
reads what a caller relies on; `promises` asks the real routes, which `host` opens on the loopback, whether it holds;
`steps` does so in a run.
"""

"""The pages, one module a noun: `load(store, query)` gives a frozen value, `view(request)` answers with it.

A page is its value: the template shows it, and the same address with `.json` gives it as JSON. `load` reads the store
and nothing else, so that it can be tested without HTTP.
"""

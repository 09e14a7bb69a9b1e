"""Small tools that every house may use and that know nothing of machine learning.

Errors with a code and a next step, digests, ids, the clock, near names, atomic files. Nothing here
imports a house of Modelyard, and nothing here loads a third-party library beyond msgspec.
"""

"""From a training table to a sealed model: families that compete, the search, the choice, the export.

`steps.py` holds the functions that a plan calls. `families/` has one file a family; `dataset` turns a table into
arrays, `folds` divides it, `prepare` fills and encodes, `search` tries settings, `select` chooses, `making` trains the
winner and puts the bundle together, `export` holds it to parity, `measuring` and `repeating` look at what was made.
"""

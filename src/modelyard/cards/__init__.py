"""Evidence into the model card, and the card into HTML, Markdown and JSON.

`steps.py` is the step `card`; `build.py` writes the nine sections, copying every number from its evidence with the
path where it stands (`facts.py`, `tables.py`, `figures.py`). `render.py` and `markdown.py` print a card, `verify.py`
compares a card with its evidence and a file with its card. `charts/` draws SVG from plain data. `section.py` is the
human part in `modelyard.yaml`.
"""

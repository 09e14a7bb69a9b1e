"""Versions of a model while the server answers: opened, rehearsed, tried beside the champion, swapped."""

"""Sections of `modelyard.yaml` that belong to the houses above `spec`, which may not be imported here."""

from __future__ import annotations

"""Answer a table with a model, without a server: read in a stream, answered on every core, written in parts.

`reading` opens what was named, `answering` puts the model's answer beside the rows, `parts` keeps what is done where a
kill cannot harm it, `streaming` ties them together.
"""

from __future__ import annotations

from modelyard.pipeline.scoring.reading import Rows, open_rows
from modelyard.pipeline.scoring.streaming import Scored, score, stream

__all__ = ["Rows", "Scored", "open_rows", "score", "stream"]

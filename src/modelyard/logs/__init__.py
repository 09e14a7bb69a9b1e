"""What steps and servers print and log: one JSON object a line, tied together by one id, without secrets.

`Capture` takes what a step prints and logs, `LogFiles` keeps it in `.modelyard/logs/` for as long as it may stay,
`read` finds it again, `ship` hands it to other systems (`sinks`) and keeps what they did not take yet.
"""

from __future__ import annotations

from modelyard.logs.capture import Capture, listening
from modelyard.logs.files import LogFiles, logs_folder, logs_of
from modelyard.logs.line import About, Line

__all__ = ["About", "Capture", "Line", "LogFiles", "listening", "logs_folder", "logs_of"]

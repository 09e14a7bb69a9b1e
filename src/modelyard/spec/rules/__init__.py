"""What cannot hold together in one section or between sections: generators of `Finding`, run by `contradict`."""

from __future__ import annotations

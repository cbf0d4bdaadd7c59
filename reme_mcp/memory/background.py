"""TODO."""

from __future__ import annotations

CHUNK = 32

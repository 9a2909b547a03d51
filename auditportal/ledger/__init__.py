"""The log: append, sealing, checkpoints, keys, verification and search."""

from __future__ import annotations

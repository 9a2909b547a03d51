"""The demo's story and the small systems it needs. Never part of a real installation."""

from __future__ import annotations

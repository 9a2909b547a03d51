"""Clients of other systems. They speak HTTP, not ORM."""

from __future__ import annotations

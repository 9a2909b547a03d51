"""HTML pages, one module per page family."""

from __future__ import annotations

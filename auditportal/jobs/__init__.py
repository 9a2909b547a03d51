"""Long work as rows: claimed under a lease, resumed after a crash, cancelled on request."""

from __future__ import annotations

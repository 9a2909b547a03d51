"""Models, versions, ModelKits, layers and runs, and what differs between two of them."""

from __future__ import annotations

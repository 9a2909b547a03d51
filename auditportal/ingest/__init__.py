"""What other systems say becomes events and catalog rows; one adapter module per source."""

from __future__ import annotations

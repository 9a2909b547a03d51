"""Registry and storage against the record: jobs, findings, holds on promotion."""

from __future__ import annotations

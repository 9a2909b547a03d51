"""Builds audit bundles; their format lives in auditproof."""

from __future__ import annotations

"""Policies, promotion requests, gates and signatures."""

from __future__ import annotations

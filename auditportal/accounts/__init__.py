"""Users, roles, API tokens and the actor directory."""

from __future__ import annotations

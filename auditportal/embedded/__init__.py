"""What `bin/run` starts on a machine that has only Python: PostgreSQL, Valkey and the portal's processes."""

from __future__ import annotations

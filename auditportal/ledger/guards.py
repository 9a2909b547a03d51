"""Whether the database still refuses what it must refuse (`sql/guards.sql`), and who may do what."""

from __future__ import annotations

import re
from pathlib import Path

from django.db import connections
from django.db.backends.utils import CursorWrapper

SQL = Path(__file__).with_name("sql") / "guards.sql"
TRIGGERS = {
    "ledger_entry": ("chain", "refuse_change", "refuse_truncate"),
    "ledger_body": ("body_follows", "refuse_change", "refuse_truncate"),
    "ledger_checkpoint": ("refuse_change", "refuse_truncate"),
    "ledger_head": ("head_moves", "refuse_change", "refuse_truncate"),
}
INSERT_ONLY = ("ledger_entry", "ledger_body", "ledger_checkpoint")
CHANGING = ("UPDATE", "DELETE", "TRUNCATE")


def check(alias: str = "default") -> list[str]:
    """What is missing, in words; an empty list when every guard stands."""
    with connections[alias].cursor() as cursor:
        return [*_missing_triggers(cursor), *_changed_functions(cursor), *_missing_check(cursor), *_privileges(cursor)]


def grant(alias: str, role: str) -> None:
    """The application's role may read and append the log, and do its work on every other table. Safe to repeat."""
    name = '"' + role.replace('"', '""') + '"'
    with connections[alias].cursor() as cursor:
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {name}")
        cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
        cursor.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}")
        cursor.execute(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO " + name
        )
        cursor.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO " + name)
        cursor.execute(f"REVOKE ALL ON {', '.join(TRIGGERS)}, django_migrations FROM {name}")
        cursor.execute(f"GRANT SELECT, INSERT ON {', '.join(INSERT_ONLY)} TO {name}")
        # The head is locked by each append and moved by the chain trigger alone; naming a column is what a lock needs.
        cursor.execute(f"GRANT SELECT, UPDATE (lock_token) ON ledger_head TO {name}")
        cursor.execute(f"GRANT SELECT ON django_migrations TO {name}")


def _missing_triggers(cursor: CursorWrapper) -> list[str]:
    cursor.execute(
        "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE c.relname = ANY(%s) AND t.tgenabled = 'A'",
        [list(TRIGGERS)],
    )
    standing = set(cursor.fetchall())
    return [
        f"trigger {trigger} on {table} is missing or not always enabled"
        for table, triggers in TRIGGERS.items()
        for trigger in triggers
        if (table, trigger) not in standing
    ]


def _changed_functions(cursor: CursorWrapper) -> list[str]:
    """The functions' bodies are those of the file: a guard that was rewritten guards nothing."""
    wanted = dict(re.findall(r"CREATE FUNCTION (\w+)\(\).*?\$\$(.*?)\$\$;", SQL.read_text(), re.DOTALL))
    cursor.execute("SELECT proname, prosrc FROM pg_proc WHERE proname = ANY(%s)", [list(wanted)])
    standing = dict(cursor.fetchall())
    return [f"function {name} is not ours" for name, source in wanted.items() if standing.get(name) != source]


def _missing_check(cursor: CursorWrapper) -> list[str]:
    cursor.execute("SELECT 1 FROM pg_constraint WHERE conname = 'leaf_hash_is_sha256' AND convalidated")
    return [] if cursor.fetchone() else ["the CHECK that a leaf hash is the hash of its header is missing"]


def _privileges(cursor: CursorWrapper) -> list[str]:
    """The role we are connected as must not be able to change the log; an owner or superuser always can."""
    cursor.execute(
        "SELECT t.name, p.name FROM unnest(%s::text[]) t(name), unnest(%s::text[]) p(name)"
        " WHERE has_table_privilege(t.name, p.name)",
        [list(TRIGGERS), list(CHANGING)],
    )
    return [f"the application's role has {privilege} on {table}" for table, privilege in cursor.fetchall()]

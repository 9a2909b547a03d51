from __future__ import annotations

import re
from collections.abc import Iterable

from django.db import connection

from auditportal.accounts.models import Actor, ApiToken, User

_PSEUDONYM = re.compile(r"(usr|svc)_[0-9a-z]{16,64}|system|unknown")  # FORMAT.md §1
# By hand, since each search for an actor waits for it and the ORM takes longer to write it than PostgreSQL to answer.
_IDS = """
WITH wanted AS (SELECT upper(%s) AS name)
SELECT a.id FROM wanted w JOIN accounts_user u ON upper(u.username) = w.name JOIN accounts_actor a ON a.user_id = u.id
UNION SELECT a.id FROM wanted w JOIN accounts_actor a ON upper(a.name) = w.name
UNION SELECT l.actor_id FROM wanted w JOIN accounts_actoralias l ON upper(l.name) = w.name
"""


def display_names(ids: Iterable[str]) -> dict[str, str]:
    """Names by pseudonym, in one query; erased and unknown ones are absent and show as themselves."""
    found = Actor.objects.filter(id__in=set(ids)).exclude(name="")
    return dict(found.values_list("id", "name"))


def actor_ids(name: str) -> list[str]:
    """The pseudonyms that a name in a search stands for: itself, a username, or a name some source uses."""
    if _PSEUDONYM.fullmatch(name):
        return [name]
    with connection.cursor() as cursor:
        cursor.execute(_IDS, [name])
        return sorted(actor_id for (actor_id,) in cursor.fetchall())


def people() -> list[User]:
    return list(User.objects.select_related("actor").order_by("username"))


def tokens() -> list[ApiToken]:
    return list(ApiToken.objects.select_related("actor").order_by("-created_at", "-id"))

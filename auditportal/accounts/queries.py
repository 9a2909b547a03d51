from __future__ import annotations

from collections.abc import Iterable

from auditportal.accounts.models import Actor, ApiToken, User


def display_names(ids: Iterable[str]) -> dict[str, str]:
    """Names by pseudonym, in one query; erased and unknown ones are absent and show as themselves."""
    found = Actor.objects.filter(id__in=set(ids)).exclude(name="")
    return dict(found.values_list("id", "name"))


def actor_ids(name: str) -> list[str]:
    """The pseudonyms that a name in a search stands for: a username, or a name some source uses."""
    by_user = Actor.objects.filter(user__username__iexact=name)
    by_name = Actor.objects.filter(name__iexact=name)
    by_alias = Actor.objects.filter(aliases__name__iexact=name)
    return sorted(
        set(by_user.union(by_name, by_alias).values_list("id", flat=True)) | ({name} if "_" in name else set())
    )


def people() -> list[User]:
    return list(User.objects.select_related("actor").order_by("username"))


def tokens() -> list[ApiToken]:
    return list(ApiToken.objects.select_related("actor").order_by("-created_at", "-id"))

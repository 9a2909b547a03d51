"""What the frame around each page needs: navigation and the seal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from auditportal.accounts import queries
from auditportal.accounts.models import User
from auditportal.accounts.roles import Permission
from auditportal.ledger import queries as ledger
from auditportal.ledger.queries import SealState
from auditportal.web.formats import ago, count


@dataclass(frozen=True, slots=True)
class Section:
    key: str
    icon: str
    label: str
    route: str
    permission: Permission = Permission.READ


# A section that is not built yet has no route, and no link: nothing leads nowhere.
SECTIONS = (
    Section("overview", "home", "Overview", "overview"),
    Section("timeline", "time", "Timeline", "timeline"),
    Section("models", "box", "Models", "models"),
    Section("approvals", "pen", "Approvals", "approvals"),
    Section("reconciliation", "scale", "Reconciliation", "reconciliation"),
    Section("bundles", "out", "Bundles", "bundles", Permission.BUNDLE),
    Section("settings", "gear", "Settings", "settings-people", Permission.ADMINISTER),
)
APART = ("reconciliation", "settings")  # a line stands above these
COMPACT = 5  # places of the bar on small screens


@dataclass(frozen=True, slots=True)
class Link:
    key: str
    icon: str
    label: str
    href: str
    is_current: bool
    is_apart: bool


SEAL_TONES = {
    SealState.FAILED: "bad",
    SealState.OVERDUE: "warn",
    SealState.CHECKING: "warn",
    SealState.EMPTY: "warn",
}


@dataclass(frozen=True, slots=True)
class SealView:
    tone: str
    word: str
    detail: str
    failure: str
    is_self_attested: bool


def shell(request: HttpRequest) -> dict[str, Any]:
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        is_demo_login = settings.DEMO and request.path == reverse("account_login")
        return {"demo_people": queries.people()} if is_demo_login else {}
    links = _links(request, user)
    compact = [
        *links[: COMPACT - 1],
        Link("account", "user", "Account", reverse("account"), _at(request, "account"), is_apart=False),
    ]
    return {
        "nav": links,
        "tabs": compact,
        "seal": _seal() if user.may(Permission.READ) else None,
        "initials": initials(user),
    }


def _at(request: HttpRequest, key: str) -> bool:
    match = request.resolver_match
    return match is not None and (match.url_name or "").split("-")[0] == key


def _links(request: HttpRequest, user: User) -> list[Link]:
    links: list[Link] = []
    for section in SECTIONS:
        if not user.may(section.permission):
            continue
        try:
            href = reverse(section.route)
        except NoReverseMatch:
            continue
        links.append(
            Link(section.key, section.icon, section.label, href, _at(request, section.key), section.key in APART)
        )
    return links


def _seal() -> SealView:
    now = timezone.now()
    state = ledger.seal_state(now)
    words = {
        SealState.EMPTY: "Log empty",
        SealState.INTACT: "Log intact",
        SealState.SELF_ATTESTED: "Log intact",
        SealState.CHECKING: "Not checked yet",
        SealState.OVERDUE: "Check overdue",
        SealState.FAILED: "Log broken",
    }
    events = f"{count(state.size)} event{'' if state.size == 1 else 's'}"
    detail = f"{events} · checked {ago(state.checked_at, now)}" if state.checked_at else events
    is_self_attested = state.state in (SealState.SELF_ATTESTED, SealState.CHECKING)
    return SealView(SEAL_TONES.get(state.state, ""), words[state.state], detail, state.failure, is_self_attested)


def initials(user: User) -> str:
    words = user.printed_name.split() or [user.username]
    return "".join(word[0] for word in dict.fromkeys((words[0], words[-1]))).upper()

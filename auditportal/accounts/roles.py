"""Who may do what: pure, so that page, API and service ask the same question."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    ENGINEER = "engineer"
    LEAD = "lead"
    COMPLIANCE = "compliance"
    AUDITOR = "auditor"
    ADMIN = "admin"
    SERVICE = "service"
    NONE = "none"  # may sign in, and see that nothing is granted


class Permission(StrEnum):
    READ = "read"  # timeline, events, models, proofs
    REQUEST = "request"  # ask for a promotion
    APPROVE = "approve"  # sign or reject one
    RECONCILE = "reconcile"  # start a reconciliation
    BUNDLE = "bundle"  # build and download audit bundles
    DISCLOSE = "disclose"  # see sealed values and raw deliveries
    ADMINISTER = "administer"  # people, tokens, sources


_GRANTS: dict[Role, frozenset[Permission]] = {
    Role.ENGINEER: frozenset({Permission.READ, Permission.REQUEST, Permission.RECONCILE}),
    Role.LEAD: frozenset(
        {Permission.READ, Permission.REQUEST, Permission.APPROVE, Permission.RECONCILE, Permission.BUNDLE}
    ),
    Role.COMPLIANCE: frozenset({Permission.READ, Permission.APPROVE, Permission.BUNDLE, Permission.DISCLOSE}),
    Role.AUDITOR: frozenset({Permission.READ, Permission.BUNDLE, Permission.DISCLOSE}),
    # An admin runs the portal and does not govern models: no approving, and no exemption from any gate.
    Role.ADMIN: frozenset({Permission.READ, Permission.RECONCILE, Permission.ADMINISTER}),
    Role.SERVICE: frozenset(),
    Role.NONE: frozenset(),
}


def may(role: str, permission: Permission) -> bool:
    return permission in _GRANTS[Role(role)]


def roles_with(permission: Permission) -> list[Role]:
    return [role for role, grants in _GRANTS.items() if permission in grants]

"""What an environment demands before a version may enter it. Pure values with a digest that signatures cover."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from auditproof.canonical import encode
from auditproof.signatures import sha256_hex


@dataclass(frozen=True, slots=True)
class Policy:
    """`revision` grows with every change; the digest covers every field."""

    environment: str
    revision: int
    approvals: int  # from different people
    roles: tuple[str, ...]  # who may give them
    bars_requester: bool
    check_age_days: int  # the whole version was read and matched at most so long ago

    @property
    def digest(self) -> str:
        value = {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(self).items()}
        return "sha256:" + sha256_hex(encode(value))


APPROVERS = ("lead", "compliance")
POLICIES = {
    policy.environment: policy
    for policy in (
        Policy("staging", 1, approvals=1, roles=APPROVERS, bars_requester=True, check_age_days=30),
        Policy("production", 1, approvals=2, roles=APPROVERS, bars_requester=True, check_age_days=7),
    )
}

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.core.validators import RegexValidator
from django.db import models

from auditportal.accounts import roles
from auditportal.accounts.roles import Permission, Role


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(username__iexact=username)


class User(AbstractBaseUser):
    """A person who signs in. What they may do follows from the role alone; there is no superuser."""

    class Theme(models.TextChoices):
        SYSTEM = "system"
        LIGHT = "light"
        DARK = "dark"

    username = models.CharField(
        max_length=64,
        unique=True,
        validators=[RegexValidator(r"^[a-z0-9][a-z0-9._-]*$", "Lower-case letters, digits, `.`, `_` and `-`.")],
    )
    email = models.EmailField(blank=True)
    printed_name = models.CharField(max_length=200)  # as it stands on signatures (21 CFR 11.50)
    role = models.CharField(max_length=16, choices=[(role.value, role.value) for role in Role], default=Role.NONE)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField()
    theme = models.CharField(max_length=8, choices=Theme.choices, default=Theme.SYSTEM)
    uses_keys = models.BooleanField(default=True)  # single-key shortcuts can be switched off (WCAG 2.1.4)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = ["printed_name"]
    objects = UserManager()

    def __str__(self) -> str:
        return self.username

    def get_full_name(self) -> str:
        return self.printed_name

    def may(self, permission: Permission) -> bool:
        return self.is_active and roles.may(self.role, permission)


class Actor(models.Model):
    """The directory behind the pseudonyms in the log: plain rows, erasable. The pseudonym stands on afterwards."""

    id = models.CharField(primary_key=True, max_length=64)
    type = models.CharField(max_length=16)
    name = models.CharField(max_length=512, blank=True)
    user = models.OneToOneField(User, on_delete=models.SET_NULL, null=True, related_name="actor")
    first_seen = models.DateTimeField()

    def __str__(self) -> str:
        return self.name or self.id


class ActorAlias(models.Model):
    """The name under which one source knows an actor."""

    source = models.CharField(max_length=512)
    name = models.CharField(max_length=512)
    type = models.CharField(max_length=16)
    actor = models.ForeignKey(Actor, on_delete=models.CASCADE, related_name="aliases")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source", "type", "name"], name="one_actor_per_alias")]


class ApiToken(models.Model):
    """A credential of a machine. Only its hash is kept: the text is shown once."""

    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12)
    hash = models.BinaryField(max_length=32, unique=True)
    scopes = models.JSONField(default=list)
    source_id = models.CharField(max_length=100)  # the source its events are recorded under
    actor = models.ForeignKey(Actor, on_delete=models.PROTECT, related_name="tokens")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name

    def may(self, scope: str) -> bool:
        return scope in self.scopes

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

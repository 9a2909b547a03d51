from __future__ import annotations

import threading

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection

from auditportal.accounts import queries, roles, services
from auditportal.accounts.models import Actor, User
from auditportal.accounts.roles import Permission, Role
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Body
from tests.conftest import NOON, PASSWORD


def make(username="ada", **changes):
    given = {
        "username": username,
        "printed_name": "Ada Lovelace",
        "role": Role.LEAD,
        "password": PASSWORD,
        "actor": SYSTEM,
        "now": NOON,
    }
    return services.create_user(**(given | changes))


def test_person_has_a_pseudonym_and_the_log_no_name(db):
    user = make("grace", printed_name="Grace Hopper", email="grace@corp.example")
    assert user.actor.id.startswith("usr_")
    assert len(user.actor.id) == 24
    body = bytes(Body.objects.order_by("-seq")[0].body)
    assert user.actor.id.encode() in body
    for personal in (b"Grace", b"grace", b"Hopper", b"corp.example"):
        assert personal not in body


@pytest.mark.parametrize(
    "change",
    [
        {"username": "Ada Space"},
        {"username": ""},
        {"password": "short"},
        {"password": "adalovelace1"[:11]},
        {"role": "king"},
    ],
)
def test_person_that_cannot_be_is_refused_and_nothing_recorded(db, change):
    before = Body.objects.count()
    with pytest.raises(ValidationError):
        make(**change)
    assert User.objects.count() == 0
    assert Body.objects.count() == before


def test_same_alias_is_one_actor_per_source(db):
    first = services.actor_for_alias(source_id="mlflow", name="alice", type="user", now=NOON)
    assert services.actor_for_alias(source_id="mlflow", name="alice", type="user", now=NOON) == first
    assert services.actor_for_alias(source_id="other", name="alice", type="user", now=NOON) != first
    assert services.actor_for_alias(source_id="mlflow", name="alice", type="service", now=NOON) != first


def test_alias_seen_by_many_threads_at_once_is_one_actor(committed):
    found = []

    def look():
        found.append(services.actor_for_alias(source_id="mlflow", name="alice", type="user", now=NOON).id)
        connection.close()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 1
    assert len(found) == 8
    assert Actor.objects.filter(name="alice").count() == 1


@pytest.mark.parametrize("count", [1, 40])
def test_aliases_of_a_batch_are_looked_up_together(db, count, django_assert_num_queries):
    names = [f"person-{number}" for number in range(count)]
    known = [services.actor_for_alias(source_id="mlflow", name=name, type="user", now=NOON).id for name in names]
    aliases = [services.Alias("mlflow", "user", name) for name in names]
    with django_assert_num_queries(1):
        assert services.actors_for_aliases(aliases, now=NOON) == dict(zip(aliases, known, strict=True))


def test_aliases_of_a_batch_are_made_where_they_are_new(db):
    known = services.actor_for_alias(source_id="mlflow", name="alice", type="user", now=NOON)
    aliases = [
        services.Alias(*key)
        for key in [("mlflow", "user", "alice"), ("mlflow", "service", "alice"), ("ci", "user", "bob")]
    ]
    found = services.actors_for_aliases(aliases, now=NOON)
    assert found[aliases[0]] == known.id
    assert [found[alias][:4] for alias in aliases] == ["usr_", "svc_", "usr_"]
    assert services.actors_for_aliases(aliases, now=NOON) == found
    assert Actor.objects.get(id=found[aliases[2]]).name == "bob"
    assert services.actors_for_aliases([], now=NOON) == {}


def test_aliases_of_batches_at_once_are_one_actor_each(committed):
    names = [f"person-{number}" for number in range(30)]
    found = []

    def look(number):
        own = names[number:] + names[:number]
        found.append(services.actors_for_aliases([services.Alias("mlflow", "user", name) for name in own], now=NOON))
        connection.close()

    threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert all(answer == found[0] for answer in found)
    assert Actor.objects.filter(name__startswith="person-").count() == len(set(found[0].values())) == 30


def test_names_of_a_search_lead_to_pseudonyms(db):
    user = make()
    alias = services.actor_for_alias(source_id="mlflow", name="Ada", type="user", now=NOON)
    assert queries.actor_ids("ada") == sorted([user.actor.id, alias.id])
    assert queries.actor_ids("Ada Lovelace") == [user.actor.id]
    assert queries.actor_ids(user.actor.id) == [user.actor.id]
    assert queries.actor_ids("nobody") == []


def test_admin_may_not_approve_and_nobody_without_role_may_anything():
    assert not roles.may("admin", Permission.APPROVE)
    assert not any(roles.may("none", permission) for permission in Permission)
    assert roles.roles_with(Permission.ADMINISTER) == [Role.ADMIN]


def test_first_admin_is_made_once(db, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    call_command("createadmin", "frank", "Frank F", "--password-stdin", stdout=io.StringIO())
    assert User.objects.get().role == "admin"
    with pytest.raises(CommandError, match="admin already"):
        call_command("createadmin", "eve", "Eve", "--password-stdin")


def test_demo_people_need_a_demo(db, settings):
    import io

    call_command("setup_demo", stdout=io.StringIO())
    assert User.objects.count() == 0
    settings.DEMO, settings.DEMO_PASSWORD = True, PASSWORD
    call_command("setup_demo", stdout=io.StringIO())
    call_command("setup_demo", stdout=io.StringIO())
    assert User.objects.count() == 7
    settings.PRODUCTION = True
    with pytest.raises(CommandError):
        call_command("setup_demo")

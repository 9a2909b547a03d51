from __future__ import annotations

import io
import sys

import pytest
from django.core.management import CommandError, call_command

from auditportal.ingest import secrets
from auditportal.ingest.models import Source
from tests.ingest.conftest import bodies


def add(*arguments, typed="", monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    said = io.StringIO()
    call_command("add_source", *arguments, stdout=said)
    return said.getvalue()


def test_registry_with_a_password_and_hosts(db, monkeypatch):
    said = add(
        "registry", "oci", "https://r.test", "--host", "cdn.test", "--host", "auth.test:8443", "--repository", "acme/x",
        "--username", "robot", typed="pa55\n", monkeypatch=monkeypatch,
    )  # fmt: skip
    source = Source.objects.get()
    assert said == "source registry registered\n"
    assert (source.hosts, source.repositories) == (["cdn.test", "auth.test:8443"], ["acme/x"])
    assert secrets.open_sealed(source.password) == "pa55"
    assert bodies(action="source.registered")[0]["actor"]["id"] == "system"


def test_mlflow_with_password_and_hook_secret_in_that_order(db, monkeypatch):
    add(
        "m",
        "mlflow",
        "https://m.test",
        "--username",
        "a",
        "--hook-secret-stdin",
        typed="one\ntwo\n",
        monkeypatch=monkeypatch,
    )
    source = Source.objects.get()
    assert (secrets.open_sealed(source.password), secrets.open_sealed(source.hook_secret)) == ("one", "two")


def test_second_time_is_an_error_or_nothing(db, monkeypatch):
    add("m", "mlflow", "https://m.test", monkeypatch=monkeypatch)
    with pytest.raises(CommandError, match="there is a source m already"):
        add("m", "mlflow", "https://else.test", monkeypatch=monkeypatch)
    assert "there already" in add("m", "mlflow", "https://else.test", "--unless-there", monkeypatch=monkeypatch)
    assert Source.objects.get().url == "https://m.test"


def test_faulty_address_is_an_error(db, monkeypatch):
    with pytest.raises(CommandError, match="an address is"):
        add("m", "mlflow", "nowhere", monkeypatch=monkeypatch)

"""Signing in, the second factor, one's own account; and error pages."""

from __future__ import annotations

import re

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.test import Client, override_settings

from tests.conftest import PASSWORD

LOGIN = "/account/login/"


def sign_in(client, name="alice", password=PASSWORD):
    return client.post(LOGIN, {"login": name, "password": password})


def test_sign_in_and_out(people, client):
    assert sign_in(client)["Location"] == "/"
    assert client.get("/").status_code == 200
    client.post("/account/logout/")
    assert client.get("/").status_code == 302


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody", PASSWORD), ("alice", ""), ("", "")])
def test_wrong_sign_in_says_the_same_whoever_it_was(people, client, name, password, caplog):
    answer = sign_in(client, name, password)
    assert answer.status_code == 200
    assert 'role="alert"' in answer.content.decode()
    assert PASSWORD not in answer.content.decode()
    assert PASSWORD not in caplog.text


def test_failed_sign_ins_leave_a_security_line(people, client, caplog):
    sign_in(client, "alice", "wrong")
    assert any(record.name == "auditportal.security.signin" for record in caplog.records)


def test_next_page_is_kept_but_never_leads_away(people, client):
    assert (
        client.post(f"{LOGIN}?next=/timeline/", {"login": "alice", "password": PASSWORD, "next": "/timeline/"})[
            "Location"
        ]
        == "/timeline/"
    )
    other = Client()
    answer = other.post(LOGIN, {"login": "alice", "password": PASSWORD, "next": "https://evil.example/"})
    assert answer["Location"] == "/"


def test_sign_up_is_closed(client, db):
    assert "Ask an admin" in client.get("/account/signup/").content.decode()
    client.post("/account/signup/", {"username": "eve", "password1": PASSWORD, "password2": PASSWORD})
    from auditportal.accounts.models import User

    assert not User.objects.filter(username="eve").exists()


def code_for(secret):
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


def test_second_factor_is_asked_for_once_active(people, client):
    sign_in(client)
    page = client.get("/account/2fa/totp/activate/", follow=True)
    if "Confirm that it is you" in page.content.decode():
        page = client.post(
            "/account/reauthenticate/?next=/account/2fa/totp/activate/", {"password": PASSWORD}, follow=True
        )
    secret = re.search(r'<code class="cmd" tabindex="0">([A-Z2-7]+)</code>', page.content.decode())[1]
    client.post("/account/2fa/totp/activate/", {"code": code_for(secret)})
    assert "active" in client.get("/account/2fa/").content.decode()
    other = Client()
    assert sign_in(other)["Location"] == "/account/2fa/authenticate/"
    assert other.get("/").status_code == 302
    assert "one-time-code" in other.get("/account/2fa/authenticate/").content.decode()


def test_theme_is_written_by_the_server(people, as_person):
    client = as_person("alice")
    client.post("/account/", {"theme": "dark", "uses_keys": ""})
    page = client.get("/account/").content.decode()
    assert 'data-theme="dark"' in page
    assert "data-keys" not in page


def test_form_without_its_mark_is_refused_with_a_helpful_page(people):
    client = Client(enforce_csrf_checks=True)
    answer = sign_in(client)
    assert answer.status_code == 403
    assert "The form was too old" in answer.content.decode()


@override_settings(DEBUG=False)
def test_server_error_page_needs_no_database(client, monkeypatch, settings):
    from auditportal.web import overview

    client.raise_request_exception = False
    monkeypatch.setattr(overview, "_database", lambda: 1 / 0)
    answer = client.get("/healthz")
    assert answer.status_code == 500
    assert "The portal failed" in answer.content.decode()
    assert answer["Content-Security-Policy"]


def test_programs_get_documents_instead_of_pages(client, db):
    answer = client.get("/api/v1/none")
    assert answer["Content-Type"] == "application/problem+json"
    assert "Nothing here" in client.get("/none").content.decode()

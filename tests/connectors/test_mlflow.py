"""The MLflow client against a fake with recorded shapes, and against answers that are none."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from auditportal.connectors import mlflow
from auditportal.connectors.errors import ConnectorError, MissingError, UnreachableError
from auditportal.connectors.http import Client
from auditportal.connectors.mlflow import Server
from tests.fakes.mlflow import serving

REST = Path(__file__).parents[1] / "samples" / "mlflow" / "rest"


@pytest.fixture
def fake():
    with serving() as fake:
        yield fake


def server(fake, **headers):
    return Server(Client(fake.url, headers=headers, connect_s=2.0, read_s=2.0, small_s=5.0))


def ends(batches):
    return [[run["info"]["end_time"] for run in batch] for batch in batches]


def test_version_and_credentials(fake):
    assert server(fake, Authorization="Basic x").ping() == "3.17.2"
    assert fake.headers[0]["authorization"] == "Basic x"


def test_lists_are_whole_over_pages(fake):
    fake.page_size = 2
    for n in range(5):
        fake.create_version(f"m{n}")
    asking = server(fake)
    assert [item["name"] for item in asking.registered_models()] == [f"m{n}" for n in range(5)]
    assert len(asking.versions()) == 5
    assert [item["name"] for item in asking.experiments()] == ["Default"]


def test_nothing_at_all_is_an_empty_list(fake):
    asking = server(fake)
    assert (asking.registered_models(), asking.versions()) == ([], [])
    assert list(asking.finished_runs(["0"], since_ms=0)) == []
    assert list(asking.finished_runs([], since_ms=0)) == []


def test_single_objects_and_their_absence(fake):
    fake.create_version("a model/with ü", run_id="r1")
    fake.end_run(run_id="r1")
    asking = server(fake)
    assert asking.version("a model/with ü", "1")["run_id"] == "r1"
    assert asking.registered_model("a model/with ü")["name"] == "a model/with ü"
    assert asking.run("r1")["info"]["run_id"] == "r1"
    for ask in (
        lambda: asking.version("a model/with ü", "2"),
        lambda: asking.registered_model("x"),
        lambda: asking.run("x"),
    ):
        with pytest.raises(MissingError, match="RESOURCE_DOES_NOT_EXIST"):
            ask()


def test_runs_come_in_order_and_continue_by_key(fake, monkeypatch):
    monkeypatch.setattr(mlflow, "PAGE", 3)
    for n in (5, 1, 4, 2, 3, 6, 7):
        fake.end_run(end_time=n * 10)
    found = ends(server(fake).finished_runs(["0"], since_ms=20))
    assert found == [[20, 30, 40], [40, 50, 60], [60, 70]]
    assert all("page_token" not in given for _, _, given in fake.requests)


def test_more_runs_in_one_millisecond_than_a_page_holds(fake, monkeypatch):
    monkeypatch.setattr(mlflow, "PAGE", 3)
    for end in [10, *[20] * 8, 30]:
        fake.end_run(end_time=end)
    found = [run["info"]["run_id"] for batch in server(fake).finished_runs(["0"], since_ms=0) for run in batch]
    assert set(found) == set(fake.runs)


def test_runs_of_the_same_moment_alone_end(fake, monkeypatch):
    monkeypatch.setattr(mlflow, "PAGE", 2)
    for _ in range(2):
        fake.end_run(end_time=20)
    batches = list(server(fake).finished_runs(["0"], since_ms=20))
    assert {run["info"]["run_id"] for batch in batches for run in batch} == set(fake.runs)


@pytest.mark.parametrize(
    "runs",
    [
        [{"info": {"end_time": 9}}],
        [{"info": {"end_time": 30}}, {"info": {"end_time": 20}}],
        [{"info": {}}] * 500,
    ],
)
def test_order_that_was_not_asked_for_ends_the_pull(fake, runs):
    fake.body = json.dumps({"runs": runs}).encode()
    with pytest.raises(UnreachableError, match="gives runs"):
        list(server(fake).finished_runs(["0"], since_ms=10))


@pytest.mark.parametrize("runs", [[{}, {"info": 7}, {"info": {"end_time": "x"}}, 7], 7, {"a": 1}, None])
def test_runs_that_are_none_are_left_out(fake, runs):
    fake.body = json.dumps({"runs": runs}).encode()
    assert list(server(fake).finished_runs(["0"], since_ms=0)) == []


def test_pages_in_a_circle_are_an_error_and_never_half_a_list(fake):
    fake.body = json.dumps({"registered_models": [{"name": "a"}], "next_page_token": "t"}).encode()
    with pytest.raises(UnreachableError, match="do not end"):
        server(fake).registered_models()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>sign in</html>"),
        (200, b"[]"),
        (200, b"7"),
        (401, b"{}"),
        (403, b"{}"),
        (404, b'{"detail":"Not Found"}'),
        (404, b"Not Found"),
        (404, b"[]"),
        (400, b'{"error_code":"INVALID_PARAMETER_VALUE"}'),
        (429, b"{}"),
        (500, b"{}"),
        (503, b""),
    ],
)
def test_everything_else_is_unreachable_never_missing_and_never_empty(fake, status, body):
    fake.status, fake.body = status, body
    asking = server(fake)
    for ask in (asking.registered_models, asking.versions, asking.experiments, lambda: asking.version("a", "1")):
        with pytest.raises(ConnectorError) as raised:
            ask()
        assert raised.value.state == "unreachable"


def test_member_that_is_missing_in_a_good_answer(fake):
    fake.body = b"{}"
    with pytest.raises(UnreachableError, match="without model_version"):
        server(fake).version("a", "1")


def test_texts_that_no_database_keeps_are_replaced(fake):
    fake.body = b'{"registered_model":{"name":"a\\u0000","description":"\\ud800","x":NaN}}'
    assert server(fake).registered_model("a") == {"name": "a\ufffd", "description": "?", "x": "nan"}


@pytest.mark.parametrize(
    ("name", "ask", "count"),
    [
        ("registered_models_search", lambda asking: asking.registered_models(), 1),
        ("model_versions_search", lambda asking: asking.versions(), 2),
        ("experiments_search", lambda asking: asking.experiments(), 3),
        ("runs_search_endtime", lambda asking: [run for batch in asking.finished_runs(["1"], since_ms=0) for run in batch], None),
    ],
)  # fmt: skip
def test_recorded_answers_are_read(fake, name, ask, count):
    value = json.loads((REST / f"{name}.json").read_bytes())
    value.pop("next_page_token", None)
    [member] = [key for key, found in value.items() if isinstance(found, list)]
    if member == "runs":
        value["runs"].sort(key=lambda run: run["info"]["end_time"])
    fake.body = json.dumps(value).encode()
    found = ask(server(fake))
    assert found == value[member]
    assert count in (None, len(found))
    if member == "runs":
        assert all(a["info"]["end_time"] <= b["info"]["end_time"] for a, b in pairwise(found))

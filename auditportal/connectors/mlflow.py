"""A client of MLflow's REST API (measured against 3.17): what its registry and runs say now, page by page.

MLflow keeps no history and no actor, and its page tokens are offsets that skip rows while data moves. So finished
runs are read by key (their end time), and registry objects whole; what changed shows by comparing with what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from auditportal.connectors.errors import MissingError, UnreachableError, show
from auditportal.connectors.foreign import clean
from auditportal.connectors.http import Answer, Client, refusal

API = "/api/2.0/mlflow"
PAGE = 500
MOST_PAGES = 1_000
MOST_OBJECTS = 500_000  # of one kind
MOST_ANSWER = 64 * 1024 * 1024  # 500 runs with thousands of parameters each


@dataclass(frozen=True, slots=True)
class Server:
    """One MLflow server."""

    client: Client

    def ping(self) -> str:
        """Its version.

        Raises:
            UnreachableError: it does not answer as an MLflow server does.
        """
        answer = self.client.get("/version")
        error = refusal(answer)
        if error is not None or answer.status != 200:  # noqa: PLR2004 -- HTTP
            raise error or UnreachableError(f"answered {answer.status} on /version")
        return show(answer.body.decode("utf-8", "replace"))

    def experiments(self) -> list[dict[str, Any]]:
        """All experiments, soft-deleted ones included."""
        return list(self._pages("experiments/search", {"view_type": "ALL", "max_results": 1000}, "experiments"))

    def finished_runs(self, experiment_ids: list[str], *, since_ms: int) -> Iterator[list[dict[str, Any]]]:
        """Runs that ended at or after this time, oldest first, in batches; each batch continues by key.

        A run stands in two batches when several ended in one millisecond; who records them is idempotent.

        Raises:
            UnreachableError: no usable answer, or runs in an order that was not asked for.
        """
        since = since_ms
        while experiment_ids:
            found = _list(self._post("runs/search", _runs(experiment_ids, f">= {since}")), "runs")
            batch = [run for run in found if _end(run) is not None]
            ends = [end for end in map(_end, batch) if end is not None]
            if any(end < since for end in ends) or ends != sorted(ends):
                raise UnreachableError("gives runs in another order than the one asked for")
            if batch:
                yield batch
            if len(found) < PAGE:
                return
            if not ends:
                raise UnreachableError("gives runs that have not ended, where ended ones were asked for")
            if ends[-1] == since:  # more ended in one millisecond than a page holds
                yield from self._runs_of(experiment_ids, since)
                since += 1
            else:
                since = ends[-1]

    def _runs_of(self, experiment_ids: list[str], end_ms: int) -> Iterator[list[dict[str, Any]]]:
        batch: list[dict[str, Any]] = []
        for run in self._pages("runs/search", _runs(experiment_ids, f"= {end_ms}"), "runs"):
            batch.append(run)
            if len(batch) == PAGE:
                yield [run for run in batch if _end(run) is not None]
                batch = []
        yield [run for run in batch if _end(run) is not None]

    def run(self, run_id: str) -> dict[str, Any]:
        """One run.

        Raises:
            MissingError: MLflow knows no such run.
        """
        return _object(self._get(f"runs/get?run_id={quote(run_id, safe='')}", f"run {run_id}"), "run")

    def registered_models(self) -> list[dict[str, Any]]:
        """All registered models with their tags and aliases."""
        return list(self._get_pages("registered-models/search?max_results=1000", "registered_models"))

    def versions(self) -> list[dict[str, Any]]:
        """All model versions; their aliases stand with the models."""
        return list(self._get_pages("model-versions/search?max_results=10000", "model_versions"))

    def version(self, name: str, version: str) -> dict[str, Any]:
        """One model version, with the run that the list and the webhook may leave out.

        Raises:
            MissingError: MLflow knows no such version.
        """
        path = f"model-versions/get?name={quote(name, safe='')}&version={quote(version, safe='')}"
        return _object(self._get(path, f"version {name}:{version}"), "model_version")

    def registered_model(self, name: str) -> dict[str, Any]:
        """One registered model.

        Raises:
            MissingError: MLflow knows no such model.
        """
        path = f"registered-models/get?name={quote(name, safe='')}"
        return _object(self._get(path, f"model {name}"), "registered_model")

    def _pages(self, path: str, body: Mapping[str, Any], member: str) -> Iterator[dict[str, Any]]:
        return _all_pages(lambda token: self._post(path, {**body, **({"page_token": token} if token else {})}), member)

    def _get_pages(self, path: str, member: str) -> Iterator[dict[str, Any]]:
        return _all_pages(
            lambda token: self._get(f"{path}&page_token={quote(token, safe='')}" if token else path, path), member
        )

    def _get(self, path: str, what: str) -> dict[str, Any]:
        return _value(self.client.get(f"{API}/{path}", most=MOST_ANSWER), what)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _value(self.client.post(f"{API}/{path}", dict(body), most=MOST_ANSWER), path)


def _all_pages(ask: Callable[[str], Mapping[str, Any]], member: str) -> Iterator[dict[str, Any]]:
    """The members of all pages. Half a list would read as if the rest had been deleted, so it is an error.

    Raises:
        UnreachableError: no usable answer, pages that lead in a circle, or without end.
    """
    token, count = "", 0
    for _ in range(MOST_PAGES):
        value = ask(token)
        for item in _list(value, member):
            count += 1
            yield item
        following = str(value.get("next_page_token") or "")
        if not following:
            return
        if following == token or count > MOST_OBJECTS:
            break
        token = following
    raise UnreachableError(f"the pages of {member} do not end")


def _value(answer: Answer, what: str) -> dict[str, Any]:
    error = refusal(answer)
    if error is not None:
        raise error
    value = answer.json()
    if not isinstance(value, dict):
        raise UnreachableError(f"{show(what)}: answered with something that is no object")
    if answer.status == 404:  # noqa: PLR2004 -- HTTP
        if value.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
            raise MissingError(f"{show(what)}: MLflow says RESOURCE_DOES_NOT_EXIST")
        raise UnreachableError(f"{show(what)}: answered 404 without saying that it is missing")
    return dict(clean(value))


def _list(value: Mapping[str, Any], member: str) -> list[dict[str, Any]]:
    found = value.get(member, [])  # absent when empty
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _object(value: Mapping[str, Any], member: str) -> dict[str, Any]:
    found = value.get(member)
    if not isinstance(found, dict):
        raise UnreachableError(f"answered without {member}")
    return found


def _runs(experiment_ids: list[str], ended: str) -> dict[str, Any]:
    return {
        "experiment_ids": experiment_ids,
        "filter": f"attributes.end_time {ended}",
        "order_by": ["attributes.end_time ASC"],
        "max_results": PAGE,
        "run_view_type": "ALL",
    }


def _end(run: Mapping[str, Any]) -> int | None:
    info = run.get("info")
    end = info.get("end_time") if isinstance(info, dict) else None
    return end if type(end) is int else None

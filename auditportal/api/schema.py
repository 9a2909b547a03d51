"""The published JSON Schema of an event: what a producer may post, and what the log keeps (FORMAT.md §1)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from auditportal.ledger import actions
from auditproof import events

_ID = {"type": "string", "minLength": 1, "maxLength": events.MAX_ID_CHARS}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TYPE = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"}
_SHORT = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}:.+$", "maxLength": 64 + 1 + events.MAX_ID_CHARS}


def _object(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    value = {"type": "object", "properties": properties, "additionalProperties": False}
    return value | {"required": list(required)} if required else value


def event_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of one event of `POST /api/v1/events`.

    What a schema cannot say (numbers between 2^53 and 10^21, depth, size, duplicate members, real instants) is checked
    beside it, and answered with the rule.
    """
    subject = {"oneOf": [_SHORT, _object({"type": _TYPE, "id": _ID}, ("type", "id"))]}
    related = {"oneOf": [_SHORT, _object({"type": _TYPE, "id": _ID, "relation": {"type": "string"}}, ("type", "id"))]}
    known = [name for name in actions.NAMES if not actions.describe(name).is_reserved]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{settings.PUBLIC_URL}/api/v1/schema/event.json",
        "title": "AuditPortal event",
        "description": "One event as a producer posts it; a batch is an array of up to 5,000 of them.",
        **_object(
            {
                "v": {"const": 1},
                "event_id": {**_ID, "description": "Best a UUID; anything else becomes the native id and is hashed."},
                "action": {
                    "type": "string",
                    "pattern": "^[a-z][a-z0-9_.-]*$",
                    "not": {"pattern": "^ledger\\."},
                    "description": "Known: " + ", ".join(known) + ". Others are kept and shown as custom.",
                },
                "outcome": {"enum": ["done", "refused", "failed"], "default": "done"},
                "actor": {
                    "oneOf": [_ID, _object({"type": {"enum": ["user", "service"]}, "id": _ID}, ("id",))],
                    "description": "Who did it, as the producer names them; recorded as claimed, under a pseudonym.",
                },
                "timestamp": {"type": "string", "format": "date-time"},
                "timestamp_kind": {"enum": ["claimed", "observed"], "default": "claimed"},
                "not_before": {"type": "string", "format": "date-time"},
                "subject": subject,
                "related": {"type": "array", "items": related, "maxItems": events.MAX_RELATED},
                "environment": {"type": "string", "minLength": 1},
                "reason": {"type": "string", "minLength": 1},
                "metadata": {"type": "object"},
                "source": _object({"id": _ID, "native_id": _ID, "seq": {"type": "integer", "minimum": 0}}),
                "integrity": _object({"artifact_sha256": _SHA256, "event_sha256": _SHA256}),
            },
            ("action", "subject", "timestamp"),
        ),
    }


@login_not_required
@require_safe
def event(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 -- Django's signature
    response = JsonResponse(event_schema(), content_type="application/schema+json")
    response["Cache-Control"] = "public, max-age=3600"
    return response

"""A Kitfile as people write it: YAML, in the order of the stored bytes, without what only packing adds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from auditportal.connectors import modelkit
from auditportal.connectors.modelkit import SECTIONS

MOST_BYTES = 256 * 1024  # of a config shown as YAML; larger ones are offered as they are
PACKING = ("digest", "diffId")  # in the config only, never in a Kitfile's YAML


def original(manifest: bytes | None, config: bytes | None) -> dict[str, Any]:
    """The Kitfile with its members in their own order, which the database's column does not keep."""
    try:
        value = json.loads(manifest or b"")
    except (ValueError, RecursionError):
        return {}
    return modelkit.read(value, config).kitfile if isinstance(value, dict) else {}


def as_written(kitfile: Mapping[str, Any]) -> dict[str, Any]:
    """Without the digests that `kit pack` adds to each component."""
    found = dict(kitfile)
    model = found.get("model")
    if isinstance(model, dict):
        model = _bare(model)
        if isinstance(model.get("parts"), list):
            model["parts"] = [_bare(part) for part in model["parts"]]
        found["model"] = model
    for section in SECTIONS:
        if isinstance(found.get(section), list):
            found[section] = [_bare(item) for item in found[section]]
    return found


def _bare(component: Any) -> Any:  # noqa: ANN401 -- any JSON
    if not isinstance(component, dict):
        return component
    return {name: value for name, value in component.items() if name not in PACKING}


def as_yaml(kitfile: Mapping[str, Any]) -> str | None:
    """None where it is too large or too deep to be shown so."""
    if not kitfile:
        return ""
    try:
        text = yaml.safe_dump(dict(kitfile), sort_keys=False, allow_unicode=True, width=4096)
    except (yaml.YAMLError, RecursionError):
        return None
    return text if len(text) <= MOST_BYTES else None

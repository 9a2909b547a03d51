"""A ModelKit fetched from its registry: manifest, config and card, each hashed before it is believed."""

from __future__ import annotations

from auditportal.catalog import cards
from auditportal.catalog.services import ObservedKit
from auditportal.connectors import modelkit
from auditportal.connectors.errors import ConnectorError, MissingError
from auditportal.connectors.modelkit import ModelKit
from auditportal.connectors.oci import Manifest, Registry

MOST_CONFIG = 4 * 1024 * 1024  # a Kitfile beyond it is no Kitfile
DOCS = ("Docs",)


def fetch(registry: Registry, *, source: str, repository: str, reference: str, digest: str = "") -> ObservedKit:
    """What the registry gives for the reference, with the state of the reading. Never raises for what it answers.

    `digest` is what somebody told us it is: kept as identity when the registry gives nothing, since it was told to us
    and not computed, the state then says so.
    """
    try:
        manifest = registry.manifest(repository, reference)
        value = manifest.value()
    except ConnectorError as error:
        return ObservedKit(
            source=source,
            repository=repository,
            digest=digest,
            manifest=None,
            config=None,
            kit=None,
            state=error.state,
            note=error.reason,
        )
    return _read(registry, manifest, value, source=source, repository=repository)


def _read(
    registry: Registry, manifest: Manifest, value: dict[str, object], *, source: str, repository: str
) -> ObservedKit:
    state, note, config = "reported only", "the layers have not been read yet", None
    named = modelkit.config_of(value)
    if named is not None:
        try:
            config = registry.blob(repository, named[0], most=MOST_CONFIG)
        except ConnectorError as error:
            state, note = error.state, f"config: {error.reason}"
    kit = modelkit.read(value, config)
    card, card_state = _card(registry, repository, kit) if config is not None else (None, "unreachable")
    return ObservedKit(
        source=source,
        repository=repository,
        digest=manifest.digest,
        manifest=manifest.raw,
        config=config,
        kit=kit,
        state=state,
        note=note,
        card=card,
        card_state=card_state,
    )


def _card(registry: Registry, repository: str, kit: ModelKit) -> tuple[str | None, str]:
    """Docs layers first; the card, or whether it is missing or could not be looked for."""
    state = "missing"
    docs = [layer for layer in kit.layers if layer.kind in DOCS]
    for layer in docs:
        if layer.size > cards.MOST_LAYER or layer.compression not in ("", "gzip"):
            state = "unreachable"
            continue
        try:
            text = cards.find(
                registry.blob(repository, layer.digest, most=cards.MOST_LAYER), compression=layer.compression
            )
        except MissingError:
            continue
        except ConnectorError:
            state = "unreachable"
            continue
        if text is not None:
            return text, "checked"
    return None, state

"""What a manifest and a config say a ModelKit is: KitOps' own format, ModelPack (CNCF model-spec), or any artifact.

Pure: bytes in, values out. Unknown keys are kept, nothing is re-serialised, and what is derived rather than stated
says so. Sources: KitOps `kitfile.go`, `mediatype`; CNCF model-spec 0.0.7; OCI image-spec 1.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from auditportal.connectors.foreign import clean

KIT_MANIFEST = "application/vnd.kitops.modelkit.manifest.v1+json"
KIT_CONFIG = "application/vnd.kitops.modelkit.config.v1+json"
PACK_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
PACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
KITFILE_ANNOTATION = "ml.kitops.modelkit.kitfile"
SUBTYPE_ANNOTATION = "ml.kitops.modelkit.layer-subtype"
PATH_ANNOTATION = "org.cncf.model.filepath"
_LAYER = re.compile(r"application/vnd\.(?:kitops\.modelkit|cncf\.model)\.(\w+(?:\.\w+)?)\.v1\.(\w+)(?:\+(\w+))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
KINDS = {
    "model": "Model", "weight": "Model", "modelpart": "Model part", "weight.config": "Model part",
    "dataset": "Dataset", "code": "Code", "docs": "Docs", "doc": "Docs", "mcpb": "MCP server",
}  # fmt: skip
SECTIONS = ("code", "datasets", "docs", "prompts", "mcpServers")
MOST_LAYERS = 10_000
MOST_NUMBER = 1e300  # beyond it a whole number is no float
SIGNATURE_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.(sig|att|sbom))?")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as the manifest names it, with what the Kitfile adds to it."""

    kind: str  # as people read it; the raw media type where we know none
    section: str
    name: str
    path: str
    media_type: str
    digest: str
    diff_id: str
    size: int
    compression: str


@dataclass(frozen=True, slots=True)
class ModelKit:
    """`format` is `kit`, `modelpack` or `artifact`; `kitfile` is empty where there is none."""

    format: str
    kitfile: dict[str, Any]
    layers: tuple[Layer, ...]
    config_digest: str
    config_size: int
    annotations: dict[str, str]

    @property
    def parameters(self) -> Mapping[str, Any]:
        model = self.kitfile.get("model")
        found = model.get("parameters") if isinstance(model, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers under `model.parameters.metrics`, or under `model.metrics` as many examples (wrongly) have it."""
        model = self.kitfile.get("model")
        stray = model.get("metrics") if isinstance(model, dict) else None
        found = self.parameters.get("metrics") or stray
        return {
            str(name): float(value)
            for name, value in (found.items() if isinstance(found, dict) else ())
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST_NUMBER
        }

    @property
    def run_id(self) -> str:
        """The MLflow run that the Kitfile names, wherever people put it; stated by the packer, not checked."""
        provenance = self.parameters.get("mlflow_provenance")
        nested = self.parameters.get("mlflow")
        for value in (
            self.parameters.get("mlflow_run_id"),
            provenance.get("mlflow_run_id") if isinstance(provenance, dict) else None,
            nested.get("run_id") if isinstance(nested, dict) else None,
        ):
            if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
                return value
        return ""

    @property
    def license(self) -> str:
        package = self.kitfile.get("package")
        model = self.kitfile.get("model")
        for part in (model, package):
            if isinstance(part, dict) and isinstance(part.get("license"), str):
                return str(part["license"])
        return ""


def is_signature_tag(tag: str) -> bool:
    """Tags that cosign and the referrers fallback make; they are no versions."""
    return SIGNATURE_TAG.fullmatch(tag) is not None


def config_of(manifest: Mapping[str, Any]) -> tuple[str, int, str] | None:
    """Digest, size and media type of the config; None where the manifest names none that could be fetched."""
    config = manifest.get("config")
    if not isinstance(config, dict) or not _is_digest(config.get("digest")):
        return None
    return config["digest"], _size(config.get("size")), str(config.get("mediaType", ""))


def blobs_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Size by digest of config and layers, each distinct blob once."""
    found: dict[str, int] = {}
    for item in (manifest.get("config"), *_list(manifest.get("layers"))[:MOST_LAYERS]):
        if isinstance(item, dict) and _is_digest(item.get("digest")):
            found[item["digest"]] = _size(item.get("size"))
    return found


def read(manifest: Mapping[str, Any], config: bytes | None) -> ModelKit:
    """What they say together. Never fails: what cannot be read is absent, and what cannot be kept is replaced."""
    manifest = clean(dict(manifest))
    media = config_of(manifest)
    kind = _format(manifest, media[2] if media else "")
    kitfile = _kitfile(kind, manifest, config)
    components = _Components(list(_components(kitfile)))
    layers = [
        _layer(item, components.of(item["digest"], index))
        for index, item in enumerate(_list(manifest.get("layers"))[:MOST_LAYERS])
        if isinstance(item, dict) and _is_digest(item.get("digest"))
    ]
    annotations = manifest.get("annotations")
    return ModelKit(
        format=kind,
        kitfile=kitfile,
        layers=tuple(layers),
        config_digest=media[0] if media else "",
        config_size=media[1] if media else 0,
        annotations={str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {},
    )


def _format(manifest: Mapping[str, Any], config_type: str) -> str:
    """The rule of kit itself: artifactType or config type decides; older kits write only the second."""
    said = {str(manifest.get("artifactType", "")), config_type}
    if said & {KIT_MANIFEST, KIT_CONFIG}:
        return "kit"
    return "modelpack" if said & {PACK_MANIFEST, PACK_CONFIG} else "artifact"


def _kitfile(kind: str, manifest: Mapping[str, Any], config: bytes | None) -> dict[str, Any]:
    if kind == "kit":
        return _object(config)
    annotations = manifest.get("annotations")
    if kind == "modelpack" and isinstance(annotations, dict):
        text = annotations.get(KITFILE_ANNOTATION)
        return _object(text) if isinstance(text, str) else {}
    return {}


def _object(raw: bytes | str | None) -> dict[str, Any]:
    try:
        value = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return {}
    return clean(value) if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class _Component:
    section: str
    value: Mapping[str, Any]


def _components(kitfile: Mapping[str, Any]) -> Iterator[_Component]:
    """In the order in which kit lays them down; a remote dataset has no layer."""
    model = kitfile.get("model")
    if isinstance(model, dict):
        yield _Component("model", model)
        for part in _list(model.get("parts")):
            if isinstance(part, dict):
                yield _Component("parts", part)
    for section in SECTIONS:
        for item in _list(kitfile.get(section)):
            if isinstance(item, dict) and not item.get("remotePath"):
                yield _Component(section, item)


class _Components:
    """Finds a layer's component by digest where the Kitfile states one, else by order, as older kits leave it."""

    def __init__(self, found: list[_Component]) -> None:
        self._found = found
        self._has_digests = any("digest" in item.value for item in found)
        self._by_digest: dict[str, _Component] = {}
        for item in found:
            if _is_digest(item.value.get("digest")):
                self._by_digest.setdefault(item.value["digest"], item)

    def of(self, digest: str, index: int) -> _Component | None:
        if self._has_digests:
            return self._by_digest.get(digest)
        return self._found[index] if index < len(self._found) else None


def _layer(item: Mapping[str, Any], component: _Component | None) -> Layer:
    media_type = str(item.get("mediaType", ""))
    match = _LAYER.fullmatch(media_type)
    annotations = item.get("annotations")
    notes = annotations if isinstance(annotations, dict) else {}
    kind = KINDS.get(match[1], media_type) if match else media_type
    if notes.get(SUBTYPE_ANNOTATION) == "prompt":
        kind = "Prompt"
    value = component.value if component else {}
    return Layer(
        kind=kind or "Layer",
        section=component.section if component else "",
        name=_text(value.get("name")),
        path=_text(value.get("path")) or _text(notes.get(PATH_ANNOTATION)),
        media_type=media_type,
        digest=item["digest"],
        diff_id=value["diffId"] if _is_digest(value.get("diffId")) else "",
        size=_size(item.get("size")),
        compression=(match[3] or "") if match else "",
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value[:512] if isinstance(value, str) else ""


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _size(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**62 else 0

"""Model cards: found in a docs layer, read from the tar stream and never unpacked, rendered without anything active."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from dataclasses import dataclass

import nh3
import yaml
from markdown_it import MarkdownIt

NAMES = ("model_card.md", "readme.md")  # a card proper comes before a readme
MOST_LAYER = 16 * 1024 * 1024  # of a layer looked into; cards live in small ones
MOST_UNPACKED = 64 * 1024 * 1024
MOST_MEMBERS = 10_000
MOST_CARD = 1024 * 1024
MOST_SHOWN = 64 * 1024  # of a card on a page; hostile markdown costs time by the square of its length
MOST_FRONT = 16 * 1024
MOST_FACT = 200
_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)
# Links lead out of the portal, so they are few and marked; pictures would call home, so there are none.
TAGS = {
    "h2", "h3", "h4", "h5", "h6", "p", "ul", "ol", "li", "em", "strong", "code", "pre", "blockquote", "table", "thead",
    "tbody", "tr", "th", "td", "hr", "br", "a", "del",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """`facts` are the front matter's plain values; `html` is safe to show."""

    facts: dict[str, str]
    html: str


def find(raw: bytes, *, compression: str = "") -> str | None:
    """The text of the card in a docs layer; None when there is none that can be read.

    Links and devices are skipped, sizes are bounded before anything is believed.
    """
    plain = _plain(raw, compression)
    if plain is None:
        return None
    best: tuple[int, str] | None = None
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            for count, member in enumerate(tar):
                if count >= MOST_MEMBERS:
                    break
                name = member.name.rpartition("/")[2].lower()
                if not member.isreg() or name not in NAMES or not 0 <= member.size <= MOST_CARD:
                    continue
                file = tar.extractfile(member)
                if file is not None and (best is None or NAMES.index(name) < best[0]):
                    best = (NAMES.index(name), file.read(MOST_CARD).decode("utf-8", "replace"))
    except (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, LookupError, RuntimeError):
        # Damaged headers fail in all these ways in tarfile, chained ones by its recursion. What was read before
        # the damage still counts; without it there is no card.
        pass
    return best[1].replace("\x00", "\ufffd") if best else None


def _plain(raw: bytes, compression: str) -> bytes | None:
    if not compression:
        return raw
    if compression != "gzip":
        return None  # zstd needs a package of its own; the card then counts as not looked for
    try:
        return zlib.decompressobj(wbits=31).decompress(raw, MOST_UNPACKED)
    except zlib.error:
        return None


def render(text: str) -> Card:
    """The card as HTML of a few harmless tags, its headings below the page's own."""
    match = _FRONT.match(text)
    facts = _facts(match[1]) if match else {}
    body = text[match.end() :] if match else text
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(body[:MOST_SHOWN])
    lowered = re.sub(r"(</?)h1>", r"\1h2>", html)
    clean = nh3.clean(
        lowered,
        tags=TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https"},
        link_rel="noopener nofollow",
        attribute_filter=_outward,
    )
    return Card(facts, clean)


def _outward(_tag: str, name: str, value: str) -> str | None:
    """A link that leads out of the portal; one into it could pass for the portal's own."""
    return value if name != "href" or value.startswith(("http://", "https://")) else None


class _Loader(yaml.BaseLoader):
    """Everything as text, tags ignored, and no aliases: they can grow a few lines into gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def _facts(text: str) -> dict[str, str]:
    if len(text) > MOST_FRONT:
        return {}
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 -- a loader that makes texts, lists and dictionaries only
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {
        str(name)[:64]: (", ".join(map(str, item)) if isinstance(item, list) else item)[:MOST_FACT]
        for name, item in list(value.items())[:20]
        if isinstance(item, str | list)
    }

"""Model cards out of hostile layers: bounded, and nothing active in what is shown."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from auditportal.catalog import cards

SAMPLES = Path(__file__).parents[1] / "samples" / "oci" / "layout" / "blobs" / "sha256"
DOCS = "62389b85057ea8c8462073e51663d0512e2a091dd965d931fcafa6b38057657d"


def tar(*members):
    """A tar of (name, bytes) or TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, raw = member
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_card_of_the_sample_is_found_and_rendered():
    text = cards.find((SAMPLES / DOCS).read_bytes())
    assert text is not None
    assert "<h2>" in cards.render(text).html


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([("README.md", b"one")], "one"),
        ([("docs/ReadMe.MD", b"one")], "one"),
        ([("README.md", b"one"), ("MODEL_CARD.md", b"card")], "card"),
        ([("MODEL_CARD.md", b"card"), ("README.md", b"one")], "card"),
        ([("../../README.md", b"one")], "one"),  # only read, never written anywhere
        ([("/etc/README.md", b"one")], "one"),
        ([("README.txt", b"one")], None),
        ([link("README.md", "/etc/passwd")], None),
        ([link("README.md", "x", tarfile.LNKTYPE)], None),
        ([link("README.md", "", tarfile.CHRTYPE)], None),
        ([link("README.md", "", tarfile.FIFOTYPE)], None),
        ([link("README.md", "", tarfile.DIRTYPE)], None),
        ([("README.md", b"x" * (cards.MOST_CARD + 1))], None),
        ([("README.md", b"a\x00b\xff")], "a\ufffdb\ufffd"),
        ([], None),
    ],
)
def test_what_counts_as_a_card(members, found):
    raw = tar(*members)
    assert cards.find(raw) == found
    assert cards.find(gzip.compress(raw), compression="gzip") == found


def test_members_are_bounded():
    raw = tar(*[(f"f{n}", b"") for n in range(cards.MOST_MEMBERS)], ("README.md", b"late"))
    assert cards.find(raw) is None


def test_gzip_bomb_is_cut():
    bomb = gzip.compress(b"\x00" * (4 * cards.MOST_UNPACKED))
    tracemalloc.start()
    assert cards.find(bomb, compression="gzip") is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * cards.MOST_UNPACKED


@pytest.mark.parametrize("raw", [b"", b"no tar", b"\x1f\x8b", b"\x00" * 10_240, b"README.md" + b"\xff" * 1024])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_layer_that_is_no_tar_has_no_card(raw, compression):
    assert cards.find(raw, compression=compression) is None


def chained(count, kind):
    """Extended headers one behind the other, which tarfile reads recursively."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 0
    return info.tobuf(tarfile.USTAR_FORMAT) * count


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_chain_of_extended_headers_is_survived(kind):
    assert cards.find(chained(5_000, kind)) is None
    good = tar(("README.md", b"before"))
    assert cards.find(good[:1024] + chained(5_000, kind)) == "before"


@pytest.mark.parametrize("at", range(0, 512, 7))
def test_damaged_header_is_survived(at):
    raw = bytearray(tar(("README.md", b"one" * 100), ("MODEL_CARD.md", b"two")))
    for value in (0x00, 0x80, 0xFF, 0x39):
        raw[at] = value
        assert cards.find(bytes(raw)) in (None, "one" * 100, "two")


def test_negative_and_huge_sizes_end():
    info = tarfile.TarInfo("README.md")
    for size in (-512, -(2**62), 2**62):
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = bytes([0xFF if size < 0 else 0x80]) + (size % 2**88).to_bytes(11, "big")
        header[148:156] = b"        "
        header[148:156] = b"%06o\x00 " % sum(header[:512])
        assert cards.find(bytes(header) + b"\x00" * 1024) is None


# rendering


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![x](https://evil.test/pixel.png)",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "[x](//evil.test)",
        "[x](/account/logout/)",
        "<a href='javascript:alert(1)'>x</a>",
        "<style>*{display:none}</style>",
        "<iframe src=//evil.test></iframe>",
        '<p style="color:red" onclick="x()">y</p>',
        "[x][y]\n\n[y]: javascript:alert(1)",
        "<svg><script>1</script></svg>",
        "<javascript:alert(1)>",
    ],
)
def test_nothing_active_is_left(text):
    html = cards.render(text).html
    tags = re.findall(r"<[^>]*>", html)
    assert not [
        tag for tag in tags if re.search(r"script|style|img|iframe|svg|\son\w+=|javascript|data:|href=\"/", tag)
    ]


def test_links_lead_out_marked_and_headings_go_below_the_pages_own():
    html = cards.render("# One\n\n## Two\n\n[x](https://a.test/?q=1&r=2)").html
    assert html == (
        '<h2>One</h2>\n<h2>Two</h2>\n<p><a href="https://a.test/?q=1&amp;r=2" rel="noopener nofollow">x</a></p>\n'
    )


def test_tables_and_code_are_shown():
    html = cards.render("| a | b |\n|---|---|\n| 1 | `2` |\n\n    code <b>").html
    assert "<td>1</td>" in html
    assert "<code>2</code>" in html
    assert "code &lt;b&gt;" in html


def test_front_matter_is_facts():
    card = cards.render("---\nlicense: apache-2.0\ntags: [a, b]\nyes: true\nnested: {a: 1}\n---\n# X\n")
    assert card.facts == {"license": "apache-2.0", "tags": "a, b", "yes": "true"}
    assert card.html == "<h2>X</h2>\n"


LAUGHS = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "front",
    [
        LAUGHS,
        LAUGHS.replace("&", "&-").replace("*", "*-"),
        "a: &é x\nb: *é",
        "a: !!python/object/apply:os.system [id]\n b",
        "[" * 5000,
        "a: " + "{" * 3000,
        "? [a]\n: b",
        "- a",
        "7",
        "\tx",
        "a: b\n" * 10_000,
    ],
)  # fmt: skip
def test_front_matter_that_is_hostile_gives_no_facts(front):
    assert cards.render(f"---\n{front}\n---\nbody").facts == {}


@pytest.mark.parametrize(
    "front", ["a: !!timestamp x", "a: !!int x", "a: !!bool maybe", "a: 2026-99-99", f"a: {'9' * 5000}"]
)
def test_front_matter_is_text_whatever_it_says_it_is(front):
    assert list(cards.render(f"---\n{front}\n---\n").facts) == ["a"]


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "*a " * 100_000, "> " * 50_000, "`" * 100_000 + "a", "- " * 50_000, "|a" * 100_000]
)
def test_markdown_that_is_hostile_is_rendered_in_bounded_size(text):
    assert len(cards.render(text).html) < 8 * cards.MOST_SHOWN

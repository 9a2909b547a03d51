"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = [
    path
    for name in ("auditportal", "auditproof", "tests", "bin", "bench")
    for path in (ROOT / name).rglob("*.py")
    if "samples" not in path.parts
]
TEMPLATES = list((ROOT / "templates").rglob("*.html"))
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()


def test_project_package_stays_empty():
    assert (ROOT / "auditportal" / "__init__.py").read_text() == ""


@pytest.mark.parametrize(
    "path", sorted((ROOT / "auditportal").glob("*/__init__.py")), ids=lambda path: path.parent.name
)
def test_app_packages_hold_a_docstring_and_nothing_else(path):
    statements = ast.parse(path.read_text()).body
    assert isinstance(statements[0], ast.Expr)
    assert all(isinstance(item, ast.ImportFrom) and item.module == "__future__" for item in statements[1:])


def test_every_exception_to_a_check_has_its_reason():
    bare = []
    for path in PYTHON:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"#\s*noqa", line) and not re.search(r"# noqa: [A-Z0-9, ]+ -- \S", line):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
            if re.search(r"#\s*type:\s*ignore", line) and not re.search(r"# type: ignore\[[a-z, -]+\]  # \S", line):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert [place for place in bare if not place.startswith("tests/test_house.py")] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_nothing_stands_inline_in_templates(path):
    text = path.read_text()
    assert not re.search(r"\sstyle\s*=", text)
    assert "<style" not in text
    assert not re.search(r"\son[a-z]+\s*=", text)
    assert "|safe" not in text
    for attributes, body in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL):
        assert "src=" in attributes
        assert body == ""


def test_style_sheets_and_scripts_load_nothing_from_elsewhere():
    for path in [*(ROOT / "static").rglob("*.css"), *(ROOT / "static").rglob("*.js")]:
        assert not re.search(r"https?://|@import|url\(", path.read_text()), path


def test_no_secret_and_no_database_is_tracked():
    assert [
        name for name in TRACKED if name.endswith((".env", ".key", ".sqlite3", ".pem")) and "samples" not in name
    ] == []


def test_documents_name_only_files_that_are_there():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(
            r"`((?:docs|bin|auditproof|auditportal|templates|tests|bench)/[\w./-]+)`", path.read_text()
        ):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_every_requirement_has_its_reason():
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.search(r"\s#\s\S", line), f"{name}: {line}"


def test_compose_file_starts_what_bin_run_starts():
    import yaml

    from auditportal import settings

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"database", "queue", "setup", "web", "worker", "beat", "sealer"}
    assert "auditportal.wsgi:application" in services["web"]["command"]
    assert "run_sealer" in services["sealer"]["command"]
    assert "setup_database" in str(services["setup"]["command"])
    known = set(re.findall(r'ENV(?:\.get\(|\[)"([A-Z_]+)"', Path(settings.__file__).read_text())) | {
        "AUDITPORTAL_DEMO",
        "AUDITPORTAL_DEBUG",
    }
    for name in ("setup", "web", "worker", "beat", "sealer"):
        assert set(services[name].get("environment", {})) <= known


PROCESSES = """
import re, sys
from importlib.metadata import packages_distributions
def plain(name):
    return re.sub("[-_.]+", "-", name).lower()
locked = {plain(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", open("requirements.lock").read(), re.MULTILINE)}
kept = {top for top, names in packages_distributions().items() if locked & set(map(plain, names))}
foreign = set(packages_distributions()) - kept
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in foreign:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
assert "pytest" in foreign and "django" in kept
import django
django.setup()
import auditportal.wsgi, auditportal.urls, auditportal.celery, celery.bin.worker, celery.bin.beat, kombu.transport.redis
import django_celery_beat.schedulers, granian, supervisor.supervisord, demo.server, demo.story
from django.core.management import get_commands, load_command_class
from django.urls import get_resolver
get_resolver().url_patterns
auditportal.celery.app.loader.import_default_modules()
for name, app in get_commands().items():
    if app.startswith("auditportal"):
        load_command_class(app, name)
"""


def test_portal_starts_with_the_packages_of_its_lock_alone():
    """Here the checks' packages are installed beside them; where they are not, nothing may be missing."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "auditportal.settings"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

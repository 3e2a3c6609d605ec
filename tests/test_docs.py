"""The manual builds strictly, fetches nothing, and says what the code says; the README's commands are the test's."""

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("arap_diff", "dataset_builder", "segmodel", "editing", "fitting")
ASSET = re.compile(r"<(?:link|script|img|iframe|source|video)\b[^>]*?\b(?:href|src)=[\"']?(https?:)?//", re.IGNORECASE)
STYLE = re.compile(r"(?:url\([\"']?|@import\s+[\"'])(?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The manual, built as `make docs` does."""
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings_handlers")):
        pytest.skip("mkdocs, mkdocs-material or mkdocstrings is not installed (extra dev)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return folder


def test_the_manual_fetches_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    assert [page.name for page in pages if ASSET.search(page.read_text(encoding="utf-8"))] == []
    styles = [*pages, *site.rglob("*.css")]
    assert [path.name for path in styles if STYLE.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_its_packages_page(package, site):
    page = (site / "packages" / f"{package}.html").read_text(encoding="utf-8")
    shown = {anchor.rpartition(".")[2] for anchor in re.findall(rf'id="({package}\.[\w.]+)"', page)}
    assert set(importlib.import_module(package).__all__) <= shown


def test_every_example_is_shown(site):
    page = (site / "examples.html").read_text(encoding="utf-8")
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    assert [path.name for path in examples if f'id="{path.stem}"' not in page] == []


def test_an_asset_from_elsewhere_would_be_seen():
    assert ASSET.search('<script async src="https://cdn.example.org/x.js">')
    assert ASSET.search("<link rel=stylesheet href=//fonts.example.org/css>")
    assert STYLE.search("@font-face{src:url('https://fonts.example.org/a.woff2')}")
    assert not ASSET.search('<a href="https://example.org">')


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = re.findall(r"([\w/]+\.md)\s*$", navigation, re.MULTILINE)
    made = {"examples.md", "contributing.md", *(f"packages/{name}.md" for name in PACKAGES)}
    assert sorted(named) == sorted({path.name for path in DOCS.glob("*.md")} | made)


def texts_of_the_code():
    """Every text in the sources, with … where a value is put in."""
    for path in [*ROOT.glob("flows/**/*.py"), *ROOT.glob("packages/*/src/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def error_lines():
    """The lines that the page on troubleshooting quotes."""
    for row in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").splitlines():
        if row.startswith("| `"):
            yield from re.findall(r"`([^`]+)`", row.split(" | ")[0])


def test_quoted_error_lines_are_those_of_the_code():
    said = "\n".join(texts_of_the_code())
    quoted = list(error_lines())
    assert len(quoted) > 25
    for line in quoted:
        for piece in (piece.strip() for piece in line.split("…")):
            assert piece.strip(" ;,:()") in said, f"nobody says {piece!r} of {line!r}"


def test_the_page_of_stages_and_commands_has_them_all():
    from flows.cli import app
    from flows.stages import STAGES

    page = (DOCS / "flows.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [stage.name for stage in STAGES]
    commands = [each.name or each.callback.__name__ for each in app.registered_commands]
    assert sorted(re.findall(r"^\| `neo3df (\w+)", page, re.MULTILINE)) == sorted(commands)


def two_commands():
    """The commands of the README's section of that name."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Two commands\n")[2]
    return re.findall(r"^make (\w+)", section.partition("```\n")[2].partition("```")[0], re.MULTILINE)


def test_the_readmes_two_commands_are_targets_and_what_ci_runs():
    assert two_commands() == ["demo", "test"]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^exec make (\w+)$", ci, re.MULTILINE) == ["test"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "tests/README.md"])
def test_links_of_the_repositorys_own_pages_lead_to_files(name):
    path = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def would_run(target):
    """What `make TARGET` would run."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def test_make_demo_installs_and_runs_the_demo():
    printed = would_run("demo")
    assert "-m venv .venv" in printed
    assert printed.rstrip().endswith("neo3df demo")


def test_make_test_checks_style_types_imports_and_everything_below_tests():
    printed = would_run("test")
    for tool in ("ruff check .", "ruff format --check .", "mypy", "lint-imports", "-m pytest -q"):
        assert f".venv/bin/{tool}" in printed or f".venv/bin/python {tool}" in printed, tool
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'testpaths = ["tests"]' in settings


def test_the_conventions_page_has_the_label_ids_of_the_code():
    from fitting import LABEL_IDS

    page = (DOCS / "CONVENTIONS.md").read_text(encoding="utf-8")
    ids, names = (
        re.findall(r"^\| (?:id|part) (\|.*)$", page, re.MULTILINE)[i].strip("| ").split(" | ") for i in (0, 1)
    )
    written = {name.split(" ")[0]: int(number) for name, number in zip(names, ids, strict=True)}
    assert written == LABEL_IDS

"""What a release rests on: the tag's distribution, the workflows' systems, the citation's version."""

import importlib.util
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def project(home):
    return tomllib.loads((ROOT / home / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def home_of():
    spec = importlib.util.spec_from_file_location("release_home", ROOT / ".github" / "release_home.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.home_of


@pytest.mark.parametrize("home", [".", *(f"packages/{p.name}" for p in sorted((ROOT / "packages").iterdir()))])
def test_a_tag_names_one_distribution_and_its_tests(home, home_of):
    here = project(home)
    folder, tests = home_of(f"{here['name']}-{here['version']}")
    assert folder == home
    assert (ROOT / tests).is_dir()
    patterns = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))[True]["push"]["tags"]
    assert any(here["name"].startswith(pattern.removesuffix("-*")) for pattern in patterns)


@pytest.mark.parametrize("tag", ["arap-diff-99.0.0", "arap-diff", "neo3df-nothing-0.1.0"])
def test_another_tag_is_refused(tag, home_of):
    with pytest.raises(ValueError, match=f"tag {tag} is of no distribution as it stands: neo3df-"):
        home_of(tag)


def test_the_public_ci_covers_three_systems_and_every_python_that_is_promised():
    jobs = yaml.safe_load((WORKFLOWS / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert [each.partition("-")[0] for each in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert project(".")["requires-python"] == f">={matrix['python'][0]}"
    packages = sorted(path.name for path in (ROOT / "packages").iterdir())
    assert sorted(jobs["alone"]["strategy"]["matrix"]["package"]) == packages
    assert sorted(jobs["lowest"]["strategy"]["matrix"]["package"]) == packages


@pytest.mark.parametrize("workflow", ["ci.yml", "release.yml"])
def test_files_that_a_workflow_runs_exist(workflow):
    text = (WORKFLOWS / workflow).read_text(encoding="utf-8")
    named = re.findall(r"(?:\./|\b|(?<=\s))((?:tests|packages|\.github|\.ci)/[\w./]+)", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    targets = re.findall(r"\bmake (\w+)", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in targets if f"\n{name}:" not in makefile] == []


def test_the_citation_has_the_version_and_the_licence_of_the_application():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project(".")["version"], project(".")["license"])
    assert citation["preferred-citation"]["doi"] == "10.1007/978-3-031-26319-4_5"


def test_every_constraint_that_is_installed_allows_the_first_python_that_we_do():
    """Not the one that runs the tests only: a distribution may ask for a later patch of it."""
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    asked = {}
    for name in pins:
        try:
            asked[name] = distribution(name).metadata.get("Requires-Python") or ""
        except PackageNotFoundError:
            continue
    assert len(asked) > 50
    assert {name: words for name, words in asked.items() if "3.11.0" not in SpecifierSet(words)} == {}

"""The six distributions build; their wheels are pure Python, typed, with the licence, and hold nothing else."""

import importlib.util
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOMES = {name: f"packages/{name}" for name in ("arap_diff", "dataset_builder", "segmodel", "editing", "fitting")}
HOMES["flows"] = "."


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder of source distribution and wheel per package."""
    if any(importlib.util.find_spec(name) is None for name in ("build", "hatchling")):
        pytest.skip("build or hatchling is not installed (extra dev)")

    def build(package):
        out = tmp_path_factory.getbasetemp() / f"dist-{package}"
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT / HOMES[package])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return out

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(HOMES, pool.map(build, HOMES), strict=True))


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.parametrize("package", HOMES)
def test_the_wheel_needs_no_compiler_and_holds_the_package_its_types_and_its_licence(package, built):
    (wheel,) = built[package].glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = names_in(wheel)
    assert f"{package}/py.typed" in names
    assert f"{package}/__init__.py" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    others = {name.partition("/")[0] for name in names} - {package}
    assert [name for name in others if not name.endswith(".dist-info")] == []
    assert not [name for name in names if name.endswith((".so", ".pyd", ".c", ".pyc")) or "__pycache__" in name]


@pytest.mark.parametrize("package", HOMES)
def test_the_wheel_holds_every_source_file(package, built):
    home = ROOT / HOMES[package] / ("" if package == "flows" else "src") / package
    wanted = {path.relative_to(home.parent).as_posix() for path in home.rglob("*.py")}
    (wheel,) = built[package].glob("*.whl")
    assert wanted == {name for name in names_in(wheel) if name.endswith(".py")}


@pytest.mark.parametrize("package", HOMES)
def test_the_metadata_say_what_pyproject_says(package, built):
    project = tomllib.loads((ROOT / HOMES[package] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wheel,) = built[package].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == (project["name"], project["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    plain = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(plain) == len(project["dependencies"])


def test_the_configurations_travel_with_the_application(built):
    (wheel,) = built["flows"].glob("*.whl")
    wanted = {f"flows/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert wanted <= set(names_in(wheel))


@pytest.mark.parametrize("package", HOMES)
def test_the_source_distribution_holds_no_tests_and_no_data(package, built):
    (archive,) = built[package].glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = [name.partition("/")[2] for name in content.getnames()]
    assert "pyproject.toml" in names
    assert "LICENSE" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/", "runs/", ".venv/"))]
    if package == "flows":
        assert not [name for name in names if name.startswith("packages/")]


def test_twine_finds_nothing_to_complain_about(built):
    if importlib.util.find_spec("twine") is None:
        pytest.skip("twine is not installed (extra dev)")
    files = [str(path) for folder in built.values() for path in sorted(folder.iterdir())]
    assert len(files) == 2 * len(HOMES)
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", [package for package in HOMES if package != "flows"])
def test_every_package_carries_the_same_licence_text(package):
    assert (ROOT / HOMES[package] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

"""What the repository holds: every package complete, no data, no file that has outgrown itself."""

import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("arap_diff", "dataset_builder", "segmodel", "editing", "fitting")
DATA_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".heic", ".gif", ".mp4"),
    *(".npz", ".npy", ".mat", ".parquet", ".pkl", ".zip"),
    *(".onnx", ".pth", ".pt", ".safetensors", ".tflite", ".obj", ".ply", ".glb"),
}


@pytest.fixture(scope="module")
def tracked():
    """Files that git knows, or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git working tree")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("folder", [".", *(f"packages/{name}" for name in PACKAGES)])
def test_every_distribution_is_complete_and_installed_in_its_written_version(folder):
    home = ROOT / folder
    project = tomllib.loads((home / "pyproject.toml").read_text())["project"]
    assert version(project["name"]) == project["version"]
    assert project["license"] == "Apache-2.0"
    for name in ("README.md", "CHANGELOG.md"):
        assert (home / name).read_text().strip(), f"{folder}/{name} is empty"
    assert f"## {project['version']}" in (home / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_ships_its_types(package):
    assert (ROOT / "packages" / package / "src" / package / "py.typed").is_file()


def test_requirements_are_floors_and_pins_live_in_the_constraints(tracked):
    for path in (path for path in tracked if path.name == "pyproject.toml"):
        project = tomllib.loads(path.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
        assert not [name for name in wanted if "==" in name], path
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert pins
    assert all("==" in line for line in pins)


def test_no_file_is_larger_than_one_megabyte(tracked):
    assert not [str(path.relative_to(ROOT)) for path in tracked if path.stat().st_size > 1_000_000]


def test_no_photograph_no_weights_and_no_data_outside_docs(tracked):
    relative = [path.relative_to(ROOT) for path in tracked]
    found = [path for path in relative if path.suffix.lower() in DATA_SUFFIXES and path.parts[0] != "docs"]
    assert not found


def test_no_source_file_is_longer_than_five_hundred_lines(tracked):
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked
        if path.suffix == ".py" and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long

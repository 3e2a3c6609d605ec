"""Do the lower bounds in the pyproject files hold? Runs packages' tests with the lowest allowed direct requirements.

python tests/packaging/lowest_versions.py arap_diff editing [--keep torch==2.13.0]

Every `name>=x` of a package, of its extras, and of those of ours that it requires is installed as `name==x`; what they
bring along is pip's choice. `--keep` installs another version of one requirement than its lowest.
"""

import argparse
import subprocess
import tempfile
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HOMES = {
    "arap-diff": "packages/arap_diff",
    "neo3df-dataset-builder": "packages/dataset_builder",
    "neo3df-segmodel": "packages/segmodel",
    "neo3df-editing": "packages/editing",
    "neo3df-fitting": "packages/fitting",
}
EXTRAS = {"arap-diff": ("fast",), "neo3df-dataset-builder": ("photos",), "neo3df-segmodel": ("fast",)}
"""Whose requirements the tests use beyond the package's own; tests of other extras are skipped without them."""


def lowest(distribution: str) -> tuple[dict[str, str], list[str]]:
    """Lowest versions of what a distribution and those of ours below it require; and the folders of ours."""
    project = tomllib.loads((ROOT / HOMES[distribution] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    texts = [*project["dependencies"], *(text for extra in EXTRAS.get(distribution, ()) for text in extras[extra])]
    floors: dict[str, str] = {}
    homes = [HOMES[distribution]]
    for requirement in map(Requirement, texts):
        name = canonicalize_name(requirement.name)
        if name in HOMES:
            below, folders = lowest(name)
            floors.update(below)
            homes = [*folders, *homes]
        else:
            (floor,) = (each.version for each in requirement.specifier if each.operator == ">=")
            floors[name] = floor
    return floors, list(dict.fromkeys(homes))


def check(package: str, kept: dict[str, str], limits: list[str]) -> int:
    """Exit status of the package's tests with its lowest requirements, in an environment of its own."""
    (distribution,) = (name for name, home in HOMES.items() if home.endswith(f"/{package}"))
    floors, homes = lowest(distribution)
    pins = [kept.get(name, f"{name}=={version}") for name, version in floors.items()]
    print(f"== {package}: {' '.join(pins)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = next(path for path in Path(folder).glob("*/python*") if path.stem == "python")
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--prefer-binary",
            *pins,
            "pytest",
            "hypothesis",
            *limits,
        ]
        subprocess.run(install, check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *homes], cwd=ROOT, check=True)
        tests = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{package}"]
        return subprocess.run(tests, cwd=ROOT, check=False).returncode


def main() -> None:
    """Check the named packages; status 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", choices=[Path(home).name for home in HOMES.values()])
    parser.add_argument("--keep", action="append", default=[], help="requirement to install in place of its lowest")
    parser.add_argument("--with", dest="limits", action="append", default=[], help="a further requirement")
    arguments = parser.parse_args()
    kept = {canonicalize_name(Requirement(text).name): text for text in arguments.keep}
    if any([check(package, kept, arguments.limits) for package in arguments.packages]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

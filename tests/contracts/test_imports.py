"""What a light use must not load: each package is imported in a new interpreter, which then says what it has loaded."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "flows.stages": {"filelock", "pydantic", "pyyaml"},
    "editing": {"numpy", "scipy", "pillow", "pygltflib"},
    "arap_diff": {"numpy", "scipy", "torch"},
    "dataset_builder": {"numpy", "scipy", "torch", "pillow"},
    "segmodel": {"numpy", "scipy", "torch", "safetensors"},
    "fitting": {"numpy", "scipy", "torch", "numba", "pyyaml"},  # numba reads its settings from YAML
}
"""Of all libraries that any of the six distributions requires, what the import of a package may load."""

INTERPRETERS = (("flows.stages",), ("editing",), ("arap_diff", "dataset_builder", "segmodel", "fitting"))
"""Packages that are imported one after the other in an interpreter of their own, light ones first."""


def in_new_interpreter(code):
    """What ``code`` prints as the last line of standard error, from JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


def required_libraries():
    """Module names of every requirement of the six distributions and their extras: {module: distribution}."""
    wanted = set()
    for path in [ROOT / "pyproject.toml", *ROOT.glob("packages/*/pyproject.toml")]:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        texts = [
            *project["dependencies"],
            *(text for extra in project.get("optional-dependencies", {}).values() for text in extra),
        ]
        wanted |= {re.split(r"[^\w.-]", text)[0].lower() for text in texts}
    modules = packages_distributions()
    return {
        module: name.lower()
        for module, names in modules.items()
        for name in names
        if name.lower().replace("_", "-") in wanted and module != "packaging"
    }


@pytest.fixture(scope="module")
def loaded():
    """Top-level modules that each package's import adds to those of the packages before it, and all so far."""
    found = {}
    for packages in INTERPRETERS:
        found |= in_new_interpreter(
            "import importlib, json, sys\nafter = {}\n"
            f"for package in {list(packages)}:\n"
            "    importlib.import_module(package)\n"
            "    after[package] = sorted({name.partition('.')[0] for name in sys.modules})\n"
            "print(json.dumps(after), file=sys.stderr)"
        )
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_importing_a_package_loads_only_what_it_cannot_do_without(package, loaded):
    assert package.partition(".")[0] in loaded[package]
    libraries = required_libraries()
    assert {"torch", "open3d", "numba"} <= set(libraries)
    before = next(packages[: packages.index(package)] for packages in INTERPRETERS if package in packages)
    allowed = ALLOWED[package].union(*(ALLOWED[each] for each in before))
    ours = {"arap-diff", *(f"neo3df-{each.replace('_', '-')}" for each in ALLOWED)}
    assert {libraries[name] for name in loaded[package] if name in libraries} - ours <= allowed


def test_help_loads_neither_torch_nor_prefect():
    modules = in_new_interpreter(
        "import json, sys\nfrom flows.cli import main\nsys.argv = ['neo3df', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    assert "typer" in modules
    assert not {"torch", "prefect", "numpy", "pyarrow", "matplotlib", "arap_diff"}.intersection(modules)

"""What a light use must not load: packages are imported one after the other in a new interpreter, light ones first."""

import json
import subprocess
import sys

import pytest

FORBIDDEN = {
    "flows.stages": ("torch", "prefect", "dataset_builder", "matplotlib"),
    "editing": ("torch", "viser", "open3d"),
    "arap_diff": ("open3d", "numba", "kornia"),
    "dataset_builder": ("open3d", "facexlib", "onnxruntime", "cv2", "torchvision", "numba", "kornia"),
    "segmodel": ("open3d", "kornia", "numba", "cv2"),
    "fitting": ("open3d", "nvdiffrast", "prefect", "matplotlib"),
}


def in_new_interpreter(code):
    """What ``code`` prints as the last line of standard error, from JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded():
    """Top-level modules present after the import of each package."""
    return in_new_interpreter(
        "import importlib, json, sys\nafter = {}\n"
        f"for package in {list(FORBIDDEN)}:\n"
        "    importlib.import_module(package)\n"
        "    after[package] = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print(json.dumps(after), file=sys.stderr)"
    )


@pytest.mark.parametrize("package", FORBIDDEN)
def test_importing_a_package_loads_no_library_it_can_do_without(package, loaded):
    assert package.partition(".")[0] in loaded[package]
    assert not set(loaded[package]).intersection(FORBIDDEN[package])


def test_help_loads_neither_torch_nor_prefect():
    modules = in_new_interpreter(
        "import json, sys\nfrom flows.cli import main\nsys.argv = ['neo3df', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    assert "typer" in modules
    assert not {"torch", "prefect", "numpy", "pyarrow", "matplotlib", "arap_diff"}.intersection(modules)

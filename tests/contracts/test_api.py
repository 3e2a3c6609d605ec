"""The public names of the packages, as they stand in ``api_surface.json``.

After a deliberate change of a public name, say so in the package's CHANGELOG and write the inventory again:
``python tests/contracts/test_api.py``.
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

PACKAGES = ("arap_diff", "dataset_builder", "segmodel", "editing", "fitting")
INVENTORY = Path(__file__).with_name("api_surface.json")


def public_names(package):
    return sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_equal_the_inventory(package):
    recorded = json.loads(INVENTORY.read_text())[package]
    found = public_names(package)
    lost, new = sorted(set(recorded) - set(found)), sorted(set(found) - set(recorded))
    assert found == recorded, (
        f"{package} lost {lost} and gained {new}; if that is meant, note it in its CHANGELOG and run "
        "python tests/contracts/test_api.py"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists_once_and_functions_and_classes_say_what_they_are(package):
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert inspect.getdoc(module)
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isfunction(found) or inspect.isclass(found):
            text = inspect.getdoc(found)
            assert text, f"{package}.{name} has no docstring"
            assert not text.startswith(f"{name}("), f"{package}.{name} has only the docstring of its dataclass"


def public_members():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found) and found.__module__.startswith(package):
                for member, value in vars(found).items():
                    if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                        yield f"{package}.{name}.{member}", value


def test_every_public_method_has_a_docstring_and_an_annotated_result():
    members = dict(public_members())
    assert len(members) > 40
    silent = [name for name, value in members.items() if not inspect.getdoc(value)]
    assert not silent
    functions = {name: value.fget if isinstance(value, property) else value for name, value in members.items()}
    assert not [name for name, function in functions.items() if "return" not in function.__annotations__]


def test_stages_are_flows_of_their_name():
    from flows import prefect_flows
    from flows.stages import STAGES

    for name in (*(stage.name for stage in STAGES), "pipeline"):
        assert getattr(prefect_flows, name).name == name


if __name__ == "__main__":
    INVENTORY.write_text(json.dumps({package: public_names(package) for package in PACKAGES}, indent=1) + "\n")

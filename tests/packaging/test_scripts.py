"""The scripts that need a network or much time, as far as they need neither."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lowest():
    return script("tests/packaging/lowest_versions.py").lowest


@pytest.fixture(scope="module")
def mutation():
    return script("tests/mutation.py")


@pytest.mark.parametrize("name", ["dataset-builder", "segmodel", "editing", "fitting"])
def test_every_direct_requirement_has_one_lower_bound(name, lowest):
    floors, homes = lowest(f"neo3df-{name}")
    assert floors["numpy"]
    assert homes[-1] == f"packages/{name.replace('-', '_')}"


def test_what_ours_require_comes_with_them_and_is_installed_first(lowest):
    floors, homes = lowest("neo3df-segmodel")
    assert {"torch", "scipy", "safetensors", "numba"} <= set(floors)
    assert homes == ["packages/arap_diff", "packages/segmodel"]


CORE = '''"""Words stay - as they are."""
def f(x: int = 2, *, deep: bool = True) -> "a - b":
    if x < 0:
        raise ValueError(f"x is {x - 1}, below 0")
    return (x - 1.5) * -x if deep else x[0]
'''


def test_mutants_change_one_thing_each_and_no_words(mutation, tmp_path):
    path = tmp_path / "core.py"
    path.write_text(CORE)
    mutants = [(each.line, each.before, each.after) for each in mutation.mutants_of(path)]
    assert set(mutants[:2]) == {(2, "2", "3"), (2, "True", "False")}
    assert mutants[2:5] == [(3, "x < 0", "x <= 0"), (3, "x < 0", "x > 0"), (3, "0", "1")]
    later = {each[1:] for each in mutants if each[0] == 5}
    assert {("x - 1.5", "x + 1.5"), ("1.5", "3.0"), ("-x", "x"), ("0", "1")} <= later
    assert ("(x - 1.5) * -x", "(x - 1.5) / -x") in later
    assert ("(x - 1.5) * -x if deep else x[0]", "x[0] if deep else (x - 1.5) * -x") in later
    assert not [each for each in mutants if each[0] in (1, 4)]


def test_every_mutant_differs_from_the_original_and_from_the_others(mutation, tmp_path):
    path = tmp_path / "core.py"
    path.write_text(CORE)
    sources = [each.source for each in mutation.mutants_of(path)]
    assert len(set(sources)) == len(sources)
    assert mutation.ast.unparse(mutation.ast.parse(CORE)) not in sources

"""No requirement, however far down, has a licence that docs/licence_table.py does not allow; the page has them all."""

import importlib.util
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def licences():
    spec = importlib.util.spec_from_file_location("licence_table", ROOT / "docs" / "licence_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_installed_for_us_has_an_allowed_licence(licences):
    found, _ = licences.closure(wanted for _, wanted in licences.direct_requirements())
    assert len(found) > 60
    wrong = {name: licences.licence_of(each) for name, each in found.items() if name not in licences.EXCEPTIONS}
    assert {name: licence for name, licence in wrong.items() if licences.refused(licence)} == {}


def test_an_exception_is_asked_for_by_its_extra_alone(licences):
    others = [wanted for owner, wanted in licences.direct_requirements() if owner not in licences.EXCEPTIONS.values()]
    found, absent = licences.closure(others)
    assert not set(licences.EXCEPTIONS) & (set(found) | absent)


@pytest.mark.parametrize(
    ("expression", "refused"),
    [
        ("MIT", []),
        ("Apache-2.0 WITH LLVM-exception AND (BSD-3-Clause OR GPL-3.0-only)", []),
        ("BSD-3-Clause AND GPL-2.0-only", ["GPL-2.0-only"]),
        ("LGPL-3.0-only OR GPL-2.0-only", ["LGPL-3.0-only OR GPL-2.0-only"]),
        ("not stated", ["not stated"]),
        ("Proprietary", ["Proprietary"]),
    ],
)
def test_what_is_refused(expression, refused, licences):
    assert licences.refused(expression) == refused


def test_the_page_names_every_direct_requirement_and_who_asks_for_it(licences):
    rows = {
        cells[1].strip(): cells[3].strip()
        for line in licences.PAGE.read_text(encoding="utf-8").splitlines()
        if len(cells := line.split("|")) == 5
    }
    for owner, wanted in licences.direct_requirements():
        name = canonicalize_name(wanted.name)
        if name not in licences.ours():
            assert owner in rows.get(name, "").split(", "), f"{name}: run python docs/licence_table.py"

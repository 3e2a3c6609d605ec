"""The licences of everything that the six distributions require, from the metadata of what is installed here.

python docs/licence_table.py writes the table of docs/licences.md; tests/packaging/test_licences.py checks the licences.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
MARKS = ("<!-- table of dependencies -->", "<!-- end -->")
HOMES = (".", *(f"packages/{name}" for name in ("arap_diff", "dataset_builder", "segmodel", "editing", "fitting")))

SPDX = {
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "ISC": "ISC",
    "ISC license": "ISC",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Artistic License": "Artistic-1.0-Perl",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
}
"""Names in classifiers and free text, as SPDX identifiers."""

CHOSEN = {
    "text-unidecode": "Artistic-1.0-Perl",  # or GPL-2.0-or-later, at the user's choice
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "sniffio": "MIT OR Apache-2.0",
    "pillow-heif": "BSD-3-Clause AND GPL-2.0-only",  # its wheels hold codecs: licenses/LICENSES_bundled.txt
}
"""Distributions whose metadata say it in words that no rule reads, or not all of it."""

EXCEPTIONS = {"pillow-heif": "neo3df[heic]"}
"""Distributions that are not allowed, and the one extra that may ask for them."""

ALLOWED = {
    *("0BSD", "Apache-2.0", "Artistic-1.0-Perl", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python"),
    *("HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "ZPL-2.1", "Zlib"),
}
"""What a dependency may have: permissive licences, and MPL-2.0, which binds changes of its own files only."""


def direct_requirements() -> Iterator[tuple[str, Requirement]]:
    """Every requirement of the six distributions and their extras, but for development, with who has it."""
    for home in HOMES:
        project = tomllib.loads((ROOT / home / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        for extra, wanted in {"": project["dependencies"], **extras}.items():
            if extra != "dev":
                owner = project["name"] + (f"[{extra}]" if extra else "")
                yield from ((owner, Requirement(text)) for text in wanted)


def ours() -> set[str]:
    """The names of the six distributions."""
    homes = (ROOT / home / "pyproject.toml" for home in HOMES)
    return {tomllib.loads(home.read_text(encoding="utf-8"))["project"]["name"] for home in homes}


def closure(wanted: Iterable[Requirement]) -> tuple[dict[str, Distribution], set[str]]:
    """What ``wanted`` and all below it need on this machine, by name; and the names that are not installed."""
    found: dict[str, Distribution] = {}
    absent: set[str] = set()
    visited: set[tuple[str, str]] = set()
    waiting = list(wanted)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in visited:
                continue
            visited.add((name, extra))
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                absent.add(name)
                continue
            below = (Requirement(text) for text in found[name].requires or ())
            waiting += [each for each in below if each.marker is None or each.marker.evaluate({"extra": extra})]
    return found, absent


def licence_of(found: Distribution) -> str:
    """SPDX expression of a distribution, as its metadata say; what they say where that is none."""
    metadata = found.metadata
    name = canonicalize_name(metadata["Name"])
    if name in CHOSEN:
        return CHOSEN[name]
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or () if "License ::" in text]
    text = (metadata.get("License") or "").strip().splitlines()
    stated = text[0].strip() if text else ""
    if re.fullmatch(r"[\w.-]+( (AND|OR|WITH) [\w.-]+)*", stated) and stated not in ("UNKNOWN", *SPDX):
        return stated
    if classifiers:
        return " AND ".join(sorted({SPDX.get(each, each) for each in classifiers}))
    return SPDX.get(stated, stated or "not stated")


def refused(expression: str) -> list[str]:
    """The licences of an SPDX expression that are not allowed; of alternatives one allowed one is enough."""
    wrong = []
    for group in re.split(r"\s+AND\s+", expression.replace("(", "").replace(")", "")):
        choices = [re.sub(r"\s+WITH\s+\S+", "", each) for each in re.split(r"\s+OR\s+", group)]
        if not ALLOWED.intersection(choices):
            wrong.append(group)
    return wrong


def table() -> str:
    """Direct requirements and their licences, one per line."""
    owners: dict[str, list[str]] = {}
    for owner, requirement in direct_requirements():
        owners.setdefault(canonicalize_name(requirement.name), []).append(owner)
    lines = ["| requirement | licence | of |", "|---|---|---|"]
    for name in sorted(owners.keys() - ours()):
        of = ", ".join(sorted(set(owners[name])))
        lines.append(f"| {name} | {licence_of(distribution(name))} | {of} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The manual's example runs and does what it says; the manual names what is public, and its links lead somewhere."""

import re
from pathlib import Path

import torch

import arap_diff

README = Path(__file__).parents[2] / "packages" / "arap_diff" / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_readme_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names: dict = {}
    exec(compile(code, str(README), "exec"), names)
    assert names["deformed"].shape == (25, 3)
    assert torch.equal(names["deformed"][12], torch.tensor([2.0, 2.0, 1.0]))
    assert names["pull"].grad[2] > 1


def test_readme_names_everything_public() -> None:
    methods = [f".{name}(" for name in vars(arap_diff.ArapSolver) if not name.startswith("_")]
    called = [name for name in methods if callable(getattr(arap_diff.ArapSolver, name.strip(".(")))]
    assert [name for name in (*arap_diff.__all__, *called) if name not in TEXT] == []


def test_readme_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 5
    assert [link for link in links if not (README.parent / link).exists()] == []

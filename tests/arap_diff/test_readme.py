"""The example of the manual runs and does what it says."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[2] / "packages" / "arap_diff" / "README.md"


def test_readme_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    exec(compile(code, str(README), "exec"), names)
    assert names["deformed"].shape == (25, 3)
    assert torch.equal(names["deformed"][12], torch.tensor([2.0, 2.0, 1.0]))
    assert names["pull"].grad[2] > 1

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[2] / "packages" / "editing" / "README.md"


def test_the_smallest_example_of_the_readme_runs_and_widens_the_nose():
    example = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[0]
    names = {}
    exec(example, names)
    mixing = np.linalg.lstsq(names["latents"]["nose"], names["measured"]["nose"] - 40, rcond=None)[0]
    moved = (names["wider"]["nose"] - names["latents"]["nose"][0]) @ mixing
    np.testing.assert_allclose(moved / names["controllers"].region("nose").sigma, [0, 0, 0, 2, 0, 0], atol=1e-9)

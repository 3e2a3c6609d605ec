"""Which distribution a release tag names: python .github/release_home.py arap-diff-0.1.0 prints its folder and tests.

Ends with status 1 where no distribution has that name, or it has another version.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {".": "tests"}


def home_of(tag: str) -> tuple[str, str]:
    """Folder of the distribution and of its tests, of a tag ``<distribution>-<version>``."""
    written = []
    for path in (ROOT / "pyproject.toml", *sorted(ROOT.glob("packages/*/pyproject.toml"))):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        written.append(f"{project['name']}-{project['version']}")
        if tag == written[-1]:
            folder = path.parent.relative_to(ROOT).as_posix()
            return folder, TESTS.get(folder, f"tests/{path.parent.name}")
    raise ValueError(f"tag {tag} is of no distribution as it stands: {', '.join(written)}")


if __name__ == "__main__":
    try:
        home, tests = home_of(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    print(f"home={home}\ntests={tests}")

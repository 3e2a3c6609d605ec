"""How long until a stranger who has torch runs arap_diff's first example?

Builds the wheel, makes an empty environment with the torch of constraints.txt, and then measures `pip install` of that
wheel and the README's smallest example. Ends with status 1 if the two take more than a minute.

python tests/packaging/wheel_alone.py
"""

import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "arap_diff"
LIMIT_S = 60.0


def timed(what: str, *command: object) -> float:
    """Seconds of one command, which must succeed; printed."""
    started = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stdout}{done.stderr}")
    print(f"{seconds:6.1f} s  {what}", flush=True)
    return seconds


def readme_example() -> str:
    """The only Python block of the package's README."""
    (code,) = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return code + "\nprint(deformed.shape, pull.grad)\n"


def main() -> None:
    """Build, install, run, and say how long each took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timed("pip wheel", sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, PACKAGE)
        (wheel,) = folder.glob("*.whl")
        venv.create(folder / "venv", with_pip=True)
        python = next(path for path in (folder / "venv").glob("*/python*") if path.stem == "python")
        constraints = ("--constraint", ROOT / "constraints.txt")
        timed("pip install torch (not counted)", python, "-m", "pip", "install", "torch", *constraints)
        (folder / "example.py").write_text(readme_example(), encoding="utf-8")
        install = timed(f"pip install {wheel.name}", python, "-m", "pip", "install", wheel)
        example = timed("the README's smallest example", python, folder / "example.py")
        print(f"{install + example:6.1f} s  in all, of {LIMIT_S:.0f} allowed")
        if install + example > LIMIT_S:
            raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Every numbered example runs as a script."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name, *arguments):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


def test_bending_a_bar_keeps_its_edges():
    shares = run_example("01_bend_a_bar.py").splitlines()[1].split()
    assert 0.5 < float(shares[2]) <= 1.05
    assert 0.95 <= float(shares[4]) < 2.0


def test_editing_a_face_reaches_the_asked_width(tmp_path):
    printed = run_example("02_edit_a_face.py", tmp_path / "face.glb")
    assert "34.0 mm when 34 mm was asked" in printed
    assert "30 named morph targets" in printed
    assert (tmp_path / "face.glb").stat().st_size > 100_000


def test_the_tables_are_read_without_us(tiny_run):
    printed = run_example("03_read_the_tables.py", tiny_run.folder)
    assert "mean face + pose" in printed
    assert "moved_mm" in printed


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(path.name in tested for path in EXAMPLES.glob("*.py"))

"""Every numbered example runs as a script."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name, *arguments):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


def printed_by(name):
    return run_example(name).splitlines()


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
    assert "mean face" in printed
    assert "moved_mm" in printed


def test_rotations_spare_the_skin_around_a_turned_nose():
    linear, rotated = (
        [float(n) for n in re.findall(r"[\d.]+(?= mm2| of)", line)] for line in printed_by("04_turn_a_nose.py")
    )
    assert rotated[0] < linear[0] / 2
    assert linear[1] < rotated[1] < 1


def test_handles_are_found_from_a_picture():
    _, found = printed_by("05_fit_handles.py")
    assert float(found.split()[3].rstrip(";")) < 1e-3
    assert found.endswith("depth: 7.00, 5.00")


def test_a_network_learns_through_the_layer():
    before, after = (float(re.search(r"([\d.]+) mm", line)[1]) for line in printed_by("06_layer_in_a_network.py"))
    assert after < before / 4


def test_photographs_vote_for_the_true_parts():
    first, *parts = printed_by("07_part_labels.py")
    assert float(re.search(r"([\d.]+) px", first)[1]) < 2
    agreement = [float(line.split()[-1]) for line in parts]
    assert len(agreement) == 5
    assert min(agreement) > 0.9


def test_part_models_come_close_to_pca_and_seams_close():
    random, pca, stretch, crease, inside = printed_by("08_train_part_models.py")
    ratios = [[float(number) for number in re.findall(r"[a-z] ([\d.]+)", line)] for line in (random, pca)]
    assert len(ratios[0]) == len(ratios[1]) == 6
    assert max(ratios[1]) < 1.05 < min(ratios[0])
    for line in (stretch, crease):
        before, after = re.search(r"([\d.]+) -> ([\d.]+)", line).groups()
        assert float(after) < float(before) / 3
    assert inside.endswith(" 0.0 mm")


def test_parts_follow_the_mask_of_a_photograph():
    *parts, moved = printed_by("09_fit_a_mask.py")
    before, after = zip(*((float(n) for n in re.findall(r"0\.\d+", line)) for line in parts), strict=True)
    assert all(b < a for b, a in zip(before, after, strict=True))
    assert after[-1] > before[-1] + 0.05
    assert float(re.search(r"([\d.]+) mm", moved)[1]) < 3
    assert re.search(r"([\d.]+)%", moved)[1] == "0.0"


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(path.name in tested for path in EXAMPLES.glob("*.py"))

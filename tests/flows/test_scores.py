"""Scores from stored counts, and how sure their means are."""

import numpy as np
import pytest

from fitting import part_iou
from flows.errors import UserError
from flows.methods import (
    ESTIMATED,
    FINE_TUNED,
    FITTED,
    GLOBAL_3DMM,
    MASK,
    MEAN_FACE,
    OURS,
    OURS_WITHOUT_MODES,
    PRE_TRAINED,
    in_headline,
    in_table_order,
)
from flows.report.confidence import estimate, interval, paired_difference
from flows.report.data import Metrics
from flows.report.overlaps import CELLS, START, STEP_SIZES, paired_table, table_2, table_3, who_is_ahead
from flows.report.paper_numbers import TABLE_2
from flows.report.scores import scores_of
from flows.report.words import signed
from flows.stages import cells

RANDOM = np.random.default_rng(7)
LD_VAE = ("LD-VAE", FITTED)


def label_maps(n=12):
    """Blocky label images (n, 32, 32) of which some parts are too small to count."""
    return np.kron(RANDOM.integers(0, 7, (n, 8, 8)), np.ones((4, 4), int)).astype(np.uint8)


def table(overlaps, people=None):
    """An ``overlaps`` table of methods {(model, step): PartOverlap}, faces in falling order of their names."""
    n = len(next(iter(overlaps.values())).union)
    people = people or [f"person {i // 2}" for i in range(n)]
    columns = {
        "face_id": [f"face {n - i:03d}" for _ in overlaps for i in range(n)],
        "person": [person for _ in overlaps for person in people],
        "model": [model for model, _ in overlaps for _ in range(n)],
        "step": [step for _, step in overlaps for _ in range(n)],
        "reference": [MASK] * (n * len(overlaps)),
    }
    keys = ("intersection", "union", "predicted_area", "target_area")
    return columns | {key: np.concatenate([getattr(o, key) for o in overlaps.values()]) for key in keys}


def counted(iou):
    """A table's counts of faces (n,) whose five parts all have this IoU, of 1000 pixels each."""
    counts = np.repeat(np.round(1000 * np.asarray(iou, float))[:, None], 5, 1)
    full = np.full_like(counts, 1000)
    return type("Counts", (), {"intersection": counts, "union": full, "predicted_area": full, "target_area": full})


def test_scores_from_counts_are_those_of_the_evaluator():
    target = label_maps()
    target[0] = 0
    overlap = part_iou(label_maps(), target, min_area=20)
    assert not overlap.valid.all()
    found = scores_of(table({(OURS, FITTED): overlap}), MASK)[OURS, FITTED]
    backwards = slice(None, None, -1)
    np.testing.assert_array_equal(found.iou, overlap.iou()[backwards])
    np.testing.assert_allclose(found.mean_of_five, overlap.mean_of_parts()[backwards])
    np.testing.assert_allclose(found.frequency_weighted, overlap.frequency_weighted()[backwards])
    assert found.micro == pytest.approx(overlap.summary()["micro"])
    assert found.face_id[0] == "face 001"
    assert found.people[0] == "person 5"


def test_a_face_twice_or_other_faces_are_refused():
    overlap = part_iou(label_maps(), label_maps())
    rows = table({(OURS, FITTED): overlap, LD_VAE: overlap})
    rows["face_id"][0] = rows["face_id"][1]
    with pytest.raises(UserError, match=r"face face 011 has two rows of NEO-3DF, fitted: give runs whose validation"):
        scores_of(rows, MASK)
    rows["face_id"][0] = "face 900"
    with pytest.raises(
        UserError, match=r"NEO-3DF, fitted was measured on other faces than LD-VAE, fitted \(face 012 is"
    ):
        scores_of(rows, MASK)
    assert scores_of(rows, "small") == {}


def slow_interval(values, people, draws):
    """The same bootstrap, one draw after the other."""
    random, names = np.random.default_rng(0), sorted({p for p, v in zip(people, values, strict=True) if v == v})
    chosen = random.integers(0, len(names), (draws, len(names)))
    means = []
    for draw in chosen:
        drawn = [v for i in draw for p, v in zip(people, values, strict=True) if p == names[i] and v == v]
        means.append(np.mean(drawn))
    return np.quantile(means, 0.025), np.quantile(means, 0.975)


def test_the_interval_draws_people_with_all_their_photographs():
    values = RANDOM.normal(size=14)
    values[3] = np.nan
    people = np.array([f"p{i}" for i in (0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5, 6, 6)])
    assert interval(values, people, draws=200) == pytest.approx(slow_interval(values, people, 200))
    alone = np.array(["p0"] * 14)
    assert np.isnan(interval(values, alone)).all(), "one person says nothing of others"
    found = estimate(values, people)
    assert found.n == 13
    assert found.low < found.mean < found.high
    nothing = estimate(np.full(3, np.nan), people[:3])
    assert nothing.n == 0
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert not nothing.certain


def test_a_paired_difference_shows_what_intervals_side_by_side_hide():
    hard = RANDOM.normal(size=40)
    people = np.array([f"p{i}" for i in range(40)])
    ours, theirs = hard, hard + 0.05 + 0.01 * RANDOM.normal(size=40)
    assert estimate(ours, people).high > estimate(theirs, people).low
    found = paired_difference(theirs, ours, people)
    assert found.certain
    assert found.low < 0.05 < found.high + 0.01
    assert not paired_difference(ours, hard + RANDOM.normal(size=40), people).certain


def test_methods_stand_in_the_order_of_tables_and_the_headline_leaves_out_the_steps_of_rivals():
    methods = [
        (OURS, FITTED),
        ("LD-VAE", FINE_TUNED),
        (OURS_WITHOUT_MODES, FITTED),
        ("LD-VAE", PRE_TRAINED),
        (OURS, PRE_TRAINED),
        LD_VAE,
        (GLOBAL_3DMM, FITTED),
        (MEAN_FACE, ESTIMATED),
        (GLOBAL_3DMM, ESTIMATED),
        (OURS, FITTED),
    ]
    ordered = in_table_order(methods)
    assert ordered == [methods[i] for i in (7, 8, 6, 3, 1, 5, 2, 4, 0)]
    assert [method for method in ordered if not in_headline(*method)] == [methods[3], methods[1]]


def test_a_rival_ahead_is_marked_and_said():
    ours = 0.5 + 0.01 * np.arange(20)
    better, worse = counted(ours + 0.02), counted(ours - 0.03)
    rows = table({(OURS, FITTED): counted(ours), LD_VAE: better, (GLOBAL_3DMM, FITTED): worse})
    scores = scores_of(rows, MASK)
    found = paired_table(scores, "masks", "paired")
    assert [row[0] for row in found.rows] == ["global 3DMM, fitted", "LD-VAE, fitted"]
    assert set(found.rows[0][1:]) == {"-0.030\n[-0.030, -0.030]"}
    assert set(found.rows[1][1:]) == {"▲ +0.020\n[+0.020, +0.020]"}
    said = who_is_ahead(scores)
    assert said.startswith(
        "Ahead of NEO-3DF after fitting by more than chance: LD-VAE, fitted on eyebrows (+0.020), eyes"
    )
    assert "global" not in said
    noise = np.where(np.arange(20) // 2 % 2, 0.1, -0.08)
    doubtful = scores_of(table({(OURS, FITTED): counted(ours), LD_VAE: counted(ours + noise)}), MASK)
    assert who_is_ahead(doubtful).startswith("Ahead of NEO-3DF after fitting within chance: LD-VAE, fitted on eyebrows")
    best = scores_of(table({(OURS, FITTED): counted(ours), LD_VAE: worse}), MASK)
    assert who_is_ahead(best) == "NEO-3DF after fitting is ahead of every other method on every part."
    unfitted = scores_of(table({(OURS, FINE_TUNED): counted(ours), LD_VAE: worse}), MASK)
    assert paired_table(unfitted, "masks", "paired") is None
    assert who_is_ahead(unfitted) == ""


def test_table_2_has_the_mean_of_the_rows_and_the_papers_figures_apart():
    rows = table({(OURS, FITTED): counted([0.4, 0.6, 0.8])}, ["a", "b", "c"])
    found = table_2(scores_of(rows, MASK), "the masks", "table-2", TABLE_2)
    assert len(table_2(scores_of(rows, MASK), "a parser", "table-2-small", {}).rows) == 1
    assert found.rows[0][:7] == ["NEO-3DF, fitted", *["0.600"] * 6]
    assert found.rows[0][8:] == ["0.600", "3"]
    assert found.strong == {0}
    assert [row[-1] for row in found.rows] == ["3", *["5000"] * 4]
    assert all(row[0].startswith("paper, other data: ") and row[7] == "–" for row in found.rows[1:])
    assert found.rows[-1][6] == "0.570", "the mean of what the paper prints, which is not its 0.616"


def test_table_3_is_the_grid_of_the_paper_with_the_worth_of_blending():
    shift = {"not blended": 0.0, "blended": 0.04}
    overlaps = {
        (f"{cell}, {how}", step): counted(0.5 + 0.1 * j + more + 0.01 * np.arange(6))
        for j, cell in enumerate(CELLS)
        for how, more in shift.items()
        for step in ("natural", "literal")
    }
    del overlaps["latents, blended", "literal"]
    found = table_3(scores_of(table(overlaps), MASK), lambda s: s.mean_of_five, "mean of five", "table-3")
    cells_of = {row[0]: row[1:] for row in found.rows}
    assert found.header[1:] == ["latents", "controls", "latents + offsets", "controls + offsets"]
    assert [cell[:5] for cell in cells_of["natural steps, blended"]] == ["0.565", "0.665", "0.765", "0.865"]
    assert set(cells_of["natural steps: what blending adds"]) == {"+0.040\n[+0.040, +0.040]"}
    assert cells_of["the paper's steps (1e-3): what blending adds"][0] == "–"
    assert cells_of["paper, other data: what blending adds"] == ["+0.005", "-0.015", "+0.003", "+0.034"]
    assert "(6 faces)" in found.caption


def test_the_cells_of_the_report_are_those_of_the_stage():
    assert {cell.name for cell in cells.CELLS.values()} == {
        f"{cell}, {how}" for cell in CELLS for how in ("blended", "not blended")
    }
    assert set(cells.STEP_SIZES) == set(STEP_SIZES)
    assert cells.START == START


def test_a_metric_of_several_runs_is_weighted_by_its_faces():
    names = {"method": ["a", "a", "b"], "part": ["all"] * 3, "metric": ["iou"] * 3}
    found = Metrics({**names, "value": np.array([0.2, 0.8, 0.5]), "n": np.array([30, 10, 0])})
    assert found.value("a", "all", "iou") == pytest.approx(0.35)
    assert found.value("b", "all", "iou") == 0.5
    assert np.isnan(found.value("c", "all", "iou"))
    assert found.measured == [("a", "all", "iou"), ("b", "all", "iou")]


def test_nothing_is_not_minus_nothing():
    assert signed(-0.0004, 3) == "+0.000"
    assert signed(float("nan"), 3) == "–"

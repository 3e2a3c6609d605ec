import shutil

import numpy as np
import pytest

from flows.pipeline import PlainRunner
from flows.stages.cells import CELLS, STEP_SIZES
from flows.store import load_manifest
from flows.tables import read_table


@pytest.fixture(scope="module")
def cells(tiny_run, tmp_path_factory):
    """Table 3 of a copy of the tiny run, on three faces: the overlaps of all cells by (cell, step)."""
    folder = tmp_path_factory.mktemp("cells") / "run"
    shutil.copytree(tiny_run.folder, folder)
    pipeline = tiny_run.pipeline(folder, {"cells": {"n_faces": 3}}, only=["compare_settings"])
    folder = next(o.folder for o in pipeline.execute(PlainRunner) if o.name == "compare_settings")
    table = read_table(sorted(folder.glob("overlaps-*.parquet")), "overlaps")
    return folder, table


def rows_of(table, model, step):
    return [i for i, name in enumerate(zip(table["model"], table["step"], strict=True)) if name == (model, step)]


def iou(table, rows):
    return np.asarray(table["intersection"])[rows].sum() / np.asarray(table["union"])[rows].sum()


def test_every_cell_has_every_face_at_the_start_and_with_both_step_sizes(cells):
    _, table = cells
    faces = {tuple(np.array(table["face_id"])[rows_of(table, c.name, s)]) for c in CELLS.values() for s in STEP_SIZES}
    assert len(CELLS) == 8
    assert {len(each) for each in faces} == {3}
    assert len(faces) == 1


def test_natural_steps_gain_and_literal_ones_hardly_move(cells):
    _, table = cells
    for cell in CELLS.values():
        start, natural, literal = (iou(table, rows_of(table, cell.name, s)) for s in ("start", "natural", "literal"))
        assert natural > start
        assert abs(literal - start) < 0.02


def test_offsets_are_worth_something_and_the_start_knows_nothing_of_the_variables(cells):
    _, table = cells
    for variables in ("latents", "controls"):
        alone, placed = (
            iou(table, rows_of(table, f"{variables}{more}, blended", "natural")) for more in ("", " + offsets")
        )
        assert placed > alone
    starts = {iou(table, rows_of(table, c.name, "start")) for c in CELLS.values() if c.blend}
    assert len(starts) == 1


def test_without_faces_nothing_is_fitted(tiny_run):
    folder = tiny_run.output("compare_settings")
    assert not list(folder.glob("overlaps*"))
    assert load_manifest(folder).stage == "compare_settings"

"""Reports of several runs as one, of older runs, and of runs that do not fit together; how the page looks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows import cli
from flows.errors import UserError
from flows.report import write_report
from flows.sealed import read_json_sealed, write_json_sealed
from flows.stages import STAGES
from flows.store import commit, find_output, load_manifest, load_run, record_stage, work_folder
from flows.tables import read_table, table_metadata, write_table

CHROMIUM = Path("/usr/bin/chromium")
OF_A_FACE = ("overlaps", "shape_errors", "drawn_labels")


def remake(run, stage, change=lambda folder: None):
    """Make a stage's finished output again, changed, of what is newest of the stages it needs."""
    folder = find_output(run, stage)
    found = load_manifest(folder)
    key = found.key[::-1]
    work = shutil.copytree(folder, work_folder(run, stage, key))
    change(work)
    upstream = {name: load_manifest(find_output(run, name)) for name in found.upstream}
    kept = {"config": found.config, "packages": tuple(found.packages), "seconds": found.seconds}
    commit(run, stage, key, upstream=upstream, **kept)
    record_stage(run, stage, key, load_run(run).config)


def remake_all(run, first, change):
    """The same of a stage, and of all after it as they were."""
    names = [stage.name for stage in STAGES]
    for stage in names[names.index(first) :]:
        remake(run, stage, change if stage == first else lambda folder: None)


def rewrite(path, change):
    """A table again with its columns changed."""
    about = table_metadata(path)
    columns = dict(read_table(path, about["contract"]))
    change(columns)
    write_table(path, about["contract"], columns, topology_hash=about["topology_hash"], producer=about["producer"])


def rename_faces(folder):
    """Other face ids and people in all tables of faces."""

    def renamed(columns):
        for key in ("face_id", "person"):
            if key in columns:
                columns[key] = [f"other-{value}" for value in columns[key]]

    for name in OF_A_FACE:
        for path in folder.glob(f"{name}*.parquet"):
            rewrite(path, renamed)


def rename_faces_and_lower_iou(folder):
    """Other faces, of which every method hits half as many pixels."""
    rename_faces(folder)

    def lowered(columns):
        columns["intersection"] = columns["intersection"] // 2

    for path in folder.glob("overlaps*.parquet"):
        rewrite(path, lowered)


@pytest.fixture(scope="module")
def two_runs(tiny_run, tmp_path_factory):
    """Two runs of the same settings, the second with other validation faces."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = (shutil.copytree(tiny_run.folder, folder / name) for name in ("one", "two"))
    remake(second, "compare_rivals", rename_faces_and_lower_iou)
    remake(second, "evaluate", rename_faces_and_lower_iou)
    return first, second


@pytest.fixture(scope="module")
def pooled(two_runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pooled") / "evidence.html"
    done = CliRunner().invoke(cli.app, ["report", *map(str, two_runs), "-o", str(path)])
    assert done.exit_code == 0, done.output
    return path


def rows_of(page, table):
    lines = (page.with_suffix("") / f"{table}.md").read_text(encoding="utf-8").splitlines()
    cells = [line.replace("**", "").strip("|").split("|") for line in lines if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_several_runs_are_one_table_over_all_their_faces(two_runs, pooled):
    rows = rows_of(pooled, "table-2")
    tables = [read_table(find_output(run, "evaluate") / "overlaps.parquet", "overlaps") for run in two_runs]
    iou = []
    for table in tables:
        ours = [
            i for i, key in enumerate(zip(table["model"], table["step"], strict=True)) if key == ("NEO-3DF", "fitted")
        ]
        seen = table["target_area"][ours] >= 20
        iou.append(np.where(seen, table["intersection"][ours] / np.maximum(table["union"][ours], 1), np.nan))
    assert rows["NEO-3DF, fitted"][:5] == [f"{value:.3f}" for value in np.nanmean(np.concatenate(iou), 0)]
    assert rows["NEO-3DF, fitted"][-1] == "10"
    assert (
        rows_of(pooled, "differences")["photographs measured on"][0]
        == "10 clean synthetic faces of 10 people, in 2 runs"
    )
    seconds = [load_manifest(find_output(run, "evaluate")).seconds for run in two_runs]
    assert rows_of(pooled, "time")["evaluate"][0] == f"{sum(seconds):.1f}"
    assert rows_of(pooled, "shape-errors")["mean face, estimated"][-1] == "10"
    text = pooled.read_text(encoding="utf-8")
    assert "tables of runs one, two: of faces, over all of them" in text
    assert text.count('id="made-evaluate"') == 1


def test_several_runs_need_a_name_for_their_report(two_runs):
    done = CliRunner().invoke(cli.app, ["report", *map(str, two_runs)])
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == "2 runs in one report: say with -o which HTML file to write"


def test_a_face_of_two_runs_is_refused(tiny_run, two_runs, tmp_path):
    with pytest.raises(
        UserError, match=r"face synthetic-\d+ is a validation face of .*one and of .*: give runs of one fold"
    ):
        write_report([two_runs[0], two_runs[1], tiny_run.folder], tmp_path / "report.html")


def test_another_face_model_is_refused(tiny_run, two_runs, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "three")
    remake_all(run, "build_dataset", lambda folder: (folder / "face_model.npz").write_bytes(b"another"))
    with pytest.raises(UserError, match=r"one and .*three are of different face models; report them one by one"):
        write_report([two_runs[0], run], tmp_path / "report.html")


def test_other_settings_are_refused_but_folds_and_seeds(two_runs, tmp_path):
    run = shutil.copytree(two_runs[1], tmp_path / "three")
    config = json.loads(json.dumps(load_run(run).config))
    config["seed"], config["dataset"]["fold"] = 7, 3
    config["dataset"]["parser_weights"] = "elsewhere"
    record = read_json_sealed(run / "run.json")
    write_json_sealed(run / "run.json", record | {"config": config})
    assert write_report([two_runs[0], run], tmp_path / "report.html").exists()
    config["fit"]["iterations"] = 6
    write_json_sealed(run / "run.json", record | {"config": config})
    with pytest.raises(
        UserError, match=r"one and .*three differ in fit\.iterations: 5 and 6; a report is of runs with"
    ):
        write_report([two_runs[0], run], tmp_path / "report.html")


def test_a_stage_that_was_made_again_makes_the_evaluation_old(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    remake(run, "fit_photos")
    assert write_report(run, tmp_path / "report.html").exists(), "of equal content"
    run = shutil.copytree(tiny_run.folder, tmp_path / "again")
    remake(run, "fit_photos", lambda folder: (folder / "metrics.parquet").unlink())
    with pytest.raises(
        UserError, match=r"(evaluate|compare_edits) of .* was made from an older fit_photos than the newest"
    ):
        write_report(run, tmp_path / "report.html")


def test_an_older_run_shows_what_it_has_and_says_what_brings_the_rest(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")

    def only_the_old_tables(folder):
        for name in ("shape_errors", "drawn_labels", "registration"):
            for path in folder.glob(f"{name}*.parquet"):
                path.unlink()

    remake(run, "evaluate", only_the_old_tables)
    record = read_json_sealed(run / "run.json")
    for stage in ("compare_rivals", "compare_settings", "compare_edits", "learn_modes"):
        del record["stages"][stage]
    record["config"]["baselines"]["models"] = []
    del record["config"]["dataset"]["estimator"], record["config"]["evaluate"]["parser"], record["config"]["cells"]
    write_json_sealed(run / "run.json", record)
    text = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "baselines.models names those to compare with" in text
    assert "cells.n_faces says on how many faces" in text
    for absent in ("Shape error", "How far edits reach", "after a shift of"):
        assert absent not in text
    assert "NEO-3DF, fitted" in text
    assert "global PCA" not in rows_of(tmp_path / "report.html", "table-2")


def test_a_parser_is_a_second_table_beside_the_masks(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")

    def judged_by_a_parser(folder):
        shutil.copy(folder / "overlaps.parquet", folder / "overlaps-small.parquet")

        def against_it(columns):
            columns["reference"] = ["small"] * len(columns["reference"])
            columns["intersection"] = columns["intersection"] // 2

        def itself(columns):
            row = {"method": "small", "part": "all", "metric": "parser_iou", "value": 0.7654, "n": 5}
            for key, value in row.items():
                columns[key] = [*columns[key], value]

        rewrite(folder / "overlaps-small.parquet", against_it)
        rewrite(folder / "metrics.parquet", itself)

    remake(run, "evaluate", judged_by_a_parser)
    page = write_report(run, tmp_path / "report.html")
    assert "The parser small itself agrees with the masks to a mean of 0.765." in page.read_text(encoding="utf-8")
    masks, parser = rows_of(page, "table-2"), rows_of(page, "table-2-small")
    assert set(parser) < set(masks)
    for part in range(5):
        assert float(parser["NEO-3DF, fitted"][part]) == pytest.approx(
            float(masks["NEO-3DF, fitted"][part]) / 2, abs=0.01
        )
    assert not any(name.startswith("paper") for name in parser)
    assert "NEO-3DF, fine-tuned" in rows_of(page, "paired-small")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_the_window_asks_for_nothing_and_every_picture_has_words(browser, pooled, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pooled.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt.length > 20)")
    wide = page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert bool(wide) == (width == 390), "only on a narrow screen anything is wider than its box"
    headline = page.locator("#table-headline").bounding_box()
    assert headline["y"] < 900, "the headline table begins on the first screen"
    page.close()


def test_nothing_is_cut_off_on_paper(browser, pooled):
    millimetre = 96 / 25.4
    width = round((210 - 2 * 14) * millimetre)
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.emulate_media(media="print")
    page.goto(pooled.as_uri())
    inner = "[...document.querySelectorAll('table, img')].map(e => e.getBoundingClientRect())"
    assert max(page.evaluate(f"{inner}.map(r => r.right)")) <= width + 1
    tall = page.evaluate("[...document.images].map(e => e.getBoundingClientRect().height)")
    assert max(tall) <= (297 - 2 * 14) * millimetre
    assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    page.close()

"""The report page: self-contained, complete, and every number from the tables."""

import csv
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from flows import cli
from flows.contracts import PARTS
from flows.errors import UserError
from flows.machine import this_machine
from flows.report import publish, write_report
from flows.report.page import Table, write_tables
from flows.sealed import read_json_sealed, write_json_sealed
from flows.tables import read_table

TABLES = {
    "headline": "Part IoU on validation faces: nobody of them was learned from",
    "table-2": "IoU per part against the masks",
    "paired": "Difference of IoU to NEO-3DF after fitting, face by face, with its 95 % interval (the masks)",
    "readings": 'Four readings of "all five parts"',
    "shape-errors": "RMS vertex distance from the true neutral face, mm",
    "leakage": "How far edits reach, mean displacement in mm",
    "controllers": "Controllers: what one moves per sigma asked, measured after decoding (1.00 is exact)",
    "labels": "Labels by votes of the training masks",
    "part-models": "Held-out reconstruction error of the part models beside PCA of equal size",
    "regressors": "Image regressors, on training faces that were held back",
    "fine-tuning": "Fine-tuning on masks, on training faces that were held back",
    "gain": "Fitting to masks: what it gained",
    "realism": "Fitting to masks: what it cost",
    "time": "Where the time went",
    "time-per-face": "Seconds per validation face (5)",
    "set-aside": "0 inputs set aside",
    "registration": "IoU after a shift of 1 to 3 pixels",
    "differences": "This report and NEO-3DF (Yan et al. 2022)",
    "stages": "Stages",
    "configuration": "Configuration",
}


class Page(HTMLParser):
    """Addresses, fragment ids, tables by name, their captions, pictures and headings of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids, self.tables, self.captions, self.headings = [], set(), {}, {}, []
        self.pictures, self.tags, self.opened = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.addresses += [(tag, value) for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.pictures.append(found)
        self.opened.append((tag, found.get("id", "")))
        if tag == "table":
            self.rows = self.tables[found["aria-labelledby"].removeprefix("table-")] = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.opened and self.opened.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, name = self.opened[-1] if self.opened else ("", "")
        if tag == "h2":
            self.headings.append(data)
        elif name.startswith("table-"):
            self.captions[name.removeprefix("table-")] = data
        elif tag in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    return tmp_path_factory.mktemp("report") / "report.html"


@pytest.fixture(scope="module")
def text(tiny_run, page_path):
    path = page_path
    done = CliRunner().invoke(cli.app, ["report", str(tiny_run.folder), "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert "report.html" in done.output
    return path.read_text()


@pytest.fixture(scope="module")
def files(text, page_path):
    """Folder of the tables."""
    return page_path.with_suffix("")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_needs_nothing_but_itself(page, text):
    links = {value.removeprefix("#") for tag, value in page.addresses if tag == "a"}
    assert links
    assert links <= page.ids
    assert all(address.startswith("data:image/") for tag, address in page.addresses if tag != "a")
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(text) < 5_000_000


def test_every_section_table_and_figure_is_there(page, tiny_run):
    assert page.captions == TABLES
    assert list(page.tables) == list(TABLES)
    assert page.headings == [
        "From photo to edited face",
        "Part IoU on validation faces",
        "What offsets and blending are worth",
        "Shape error",
        "Edits",
        "Part labels",
        "Part models",
        "Fitting to masks",
        "Time",
        "Set aside",
        "The evaluator's own checks",
        "What differs from the paper",
        "How it was made",
    ]
    stored = [read_table(tiny_run.output(s) / "pictures.parquet", "pictures") for s in ("evaluate", "compare_edits")]
    assert len(page.pictures) == sum(len(table["image"]) for table in stored) > 6
    assert all(len(picture["alt"]) > 20 for picture in page.pictures)


def test_what_a_run_does_not_have_is_said_with_the_setting_that_brings_it(text):
    assert "cells.n_faces says on how many faces" in text


def test_the_numbers_are_those_of_the_tables(page, tiny_run):
    fits = read_table(sorted(tiny_run.output("fit_photos").glob("fits-*.parquet")), "fits")
    *_, last = page.tables["headline"]
    assert last[0] == "NEO-3DF, fitted"
    assert last[3:8] == [f"{value:.3f}" for value in np.nanmean(fits["iou_after"], 0)]
    assert last[-1] == "5"
    ours = next(row for row in page.tables["table-2"] if row[0] == "NEO-3DF, fitted")
    assert ours[1:6] == last[3:8]
    assert ours[6:8] == last[1:3]
    errors = read_table(tiny_run.output("evaluate") / "shape_errors.parquet", "shape_errors")
    mean_face = [i for i, model in enumerate(errors["model"]) if model == "mean face"]
    assert page.tables["shape-errors"][1][1:7] == [f"{value:.2f}" for value in errors["rms"][mean_face].mean(0)]
    header, *rows = page.tables["controllers"]
    assert len(rows) == 30
    assert header[3:5] == ["response at +3σ", "response at −3σ"]
    assert {row[3] for row in rows} != {row[4] for row in rows}
    _, *rows = page.tables["time"]
    assert [row[0].replace(" ", "_") for row in rows] == [outcome.name for outcome in tiny_run.outcomes]
    assert [int(row[-1].replace(",", "")) for row in rows] == [outcome.rows for outcome in tiny_run.outcomes]
    settings = dict(page.tables["configuration"][1:])
    assert settings["segments.n_shapes"] == "400"
    assert settings["dataset.face_model"] == "synthetic-3k"
    labels = page.tables["labels"]
    assert labels[0][-1] == "IoU with the true labels"
    assert [row[0].replace(" ", "_") for row in labels[1:]] == [*PARTS, "rest"]


def test_every_stage_says_how_it_was_made(page, tiny_run):
    made = {row[0]: row for row in page.tables["stages"][1:]}
    assert list(made) == [outcome.name for outcome in tiny_run.outcomes]
    for outcome in tiny_run.outcomes:
        _, run, command, keys, when, packages = made[outcome.name]
        assert run == tiny_run.folder.name
        assert command == f"neo3df run -c CONFIG\n--only {outcome.name}"
        assert keys.split("\n")[0] == outcome.key
        seconds, day, machine = when.split("\n")
        assert re.fullmatch(r"\d+\.\d", seconds)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", day)
        assert machine == this_machine()
        assert all(re.fullmatch(r"\w+ [\w.]+", line) for line in packages.split("\n"))


def test_what_differs_from_the_paper_follows_from_the_run(page):
    rows = {row[0]: row[1] for row in page.tables["differences"][1:]}
    assert rows["photographs measured on"] == "5 clean synthetic faces of 5 people"
    assert rows["photographs learned from"] == "11, 11 of them clean and with masks; of other people"
    assert rows["masks"] == "exact, drawn with the faces"
    assert rows["fits move"] == "controls, places in y and z, blended"
    assert rows["steps of a fit"] == "5, 0.1 in natural units, prior 0.001, region loss"
    assert rows["hardware"] == this_machine()
    assert rows["table 2"].startswith("every model as far as it goes: estimated, pre-trained, fine-tuned, fitted;")


def test_no_table_holds_a_hole_or_a_path(page, tiny_run, text):
    cells = [cell for name, rows in page.tables.items() for row in rows for cell in row if name != "differences"]
    assert not {"nan", ""} & set(cells)
    assert str(tiny_run.folder.parent) not in text


def test_every_table_lies_beside_the_page_as_markdown_and_csv(page, files):
    for name, rows in page.tables.items():
        with (files / f"{name}.csv").open(newline="", encoding="utf-8") as lines:
            assert list(csv.reader(lines)) == [[cell.replace("\n", " ") for cell in row] for row in rows]
        lines = (files / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert lines[0] == f"**{page.captions[name]}**"
        assert len([line for line in lines if line.startswith("|")]) == len(rows) + 1
    wanted = {f"{name}{suffix}" for name in page.tables for suffix in (".md", ".csv")}
    assert {path.name for path in files.iterdir()} == wanted | {"tables.json"}


def test_the_report_of_a_run_loads_no_torch_and_draws_nothing():
    code = "import sys, flows.report; print(sorted({'torch', 'fitting', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tables_of_an_earlier_report_go_and_other_files_stay(tmp_path):
    one, two = (
        Table(name, "A caption", ["a", "b"], [["x|y", "1\n2"]], strong=frozenset({0})) for name in ("one", "two")
    )
    write_tables(tmp_path / "r", [one, two])
    (tmp_path / "r" / "notes.md").write_text("mine")
    assert (tmp_path / "r" / "one.md").read_text().splitlines()[2:] == [
        "| a | b |",
        "|---|---:|",
        "| **x\\|y** | **1 2** |",
    ]
    write_tables(tmp_path / "r", [two])
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["notes.md", "tables.json", "two.csv", "two.md"]


def test_a_report_is_a_html_file(tiny_run, tmp_path):
    with pytest.raises(UserError, match=r"a report is a file that ends in \.html, not .*evidence"):
        write_report(tiny_run.folder, tmp_path / "evidence")


def test_publish_puts_report_and_example_into_the_run_folder(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    published = publish(run)
    assert [path.name for path in published] == ["report.html", "face.json", "face.glb"]
    assert all(path.stat().st_size > 1000 for path in published)
    assert (run / "face.glb").read_bytes() == (tiny_run.output("evaluate") / "face.glb").read_bytes()


def test_a_run_that_is_not_finished_is_named(tiny_run, tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: no run\.json"):
        write_report(tmp_path, tmp_path / "report.html")
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    next(run.glob("evaluate-*/pictures.parquet")).unlink()
    with pytest.raises(UserError, match=r"evaluate-.* is incomplete; run neo3df run again"):
        write_report(run, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_run_without_an_evaluation_says_what_is_missing(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    record = read_json_sealed(run / "run.json")
    del record["stages"]["evaluate"]
    write_json_sealed(run / "run.json", record)
    with pytest.raises(UserError, match="has no output of stage evaluate; run neo3df run first"):
        write_report(run, tmp_path / "report.html")

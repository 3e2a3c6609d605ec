"""The report page: self-contained, complete, and every number from the tables."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from flows import cli
from flows.contracts import PARTS
from flows.errors import UserError
from flows.report import publish, write_report
from flows.sealed import read_json_sealed, write_json_sealed
from flows.tables import read_table

CAPTIONS = (
    "IoU per part",
    'Four readings of "all five parts"',
    "Labels by votes of the training masks",
    "Held-out reconstruction error of the part models beside PCA of equal size",
    "Image regressors, on training faces that were held back",
    "Fine-tuning on masks, on training faces that were held back",
    "Controllers: what +1 sigma moves, measured after decoding (1.00 is exact)",
    "Where the time went",
    "Fitting to masks: gain and realism",
    "0 inputs set aside",
    "Stages of this run",
    "Configuration",
)


class Page(HTMLParser):
    """Addresses, tables and headings of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tables, self.headings, self.opened = [], {}, [], []
        self.tags = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [(tag, value) for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.opened.append(tag)
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        while self.opened and self.opened.pop() != tag:
            pass

    def handle_data(self, data):
        tag = self.opened[-1] if self.opened else ""
        if tag == "h2":
            self.headings.append(data)
        elif tag == "caption":
            self.tables[data] = self.rows
        elif tag in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def text(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    done = CliRunner().invoke(cli.app, ["report", str(tiny_run.folder), "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert "report.html" in done.output
    return path.read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_needs_nothing_but_itself(page, text):
    assert page.addresses
    assert all(tag == "img" and address.startswith("data:image/") for tag, address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(text) < 5_000_000


def test_every_section_table_and_figure_is_there(page, tiny_run):
    assert tuple(page.tables) == CAPTIONS
    assert page.headings == [
        "From photo to edited face",
        "Part IoU on validation faces",
        "Part labels",
        "Part models",
        "Controllers",
        "Time",
        "Set aside",
        "How it was made",
    ]
    pictures = read_table(tiny_run.output("evaluate") / "pictures.parquet", "pictures")
    assert len(page.addresses) == len(pictures["image"]) > 3


def test_the_numbers_are_those_of_the_tables(page, tiny_run):
    fits = read_table(sorted(tiny_run.output("fit_photos").glob("fits-*.parquet")), "fits")
    *_, last = page.tables["IoU per part"]
    assert "mask fitting" in last[0]
    assert last[1:6] == [f"{value:.3f}" for value in np.nanmean(fits["iou_after"], 0)]
    assert last[-1] == "5"
    header, *rows = page.tables["Controllers: what +1 sigma moves, measured after decoding (1.00 is exact)"]
    assert len(rows) == 30
    assert len(header) == 5
    _, *rows = page.tables["Where the time went"]
    assert [row[0].replace(" ", "_") for row in rows] == [outcome.name for outcome in tiny_run.outcomes]
    assert [int(row[-1].replace(",", "")) for row in rows] == [outcome.rows for outcome in tiny_run.outcomes]
    settings = dict(page.tables["Configuration"][1:])
    assert settings["segments.n_shapes"] == "400"
    assert settings["dataset.face_model"] == "synthetic-3k"
    labels = page.tables["Labels by votes of the training masks"]
    assert labels[0][-1] == "IoU with the true labels"
    assert [row[0].replace(" ", "_") for row in labels[1:]] == [*PARTS, "rest"]


def test_no_table_holds_a_hole_or_a_path(page, tiny_run, text):
    cells = [cell for rows in page.tables.values() for row in rows for cell in row]
    assert not {"nan", ""} & set(cells)
    assert str(tiny_run.folder.parent) not in text


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

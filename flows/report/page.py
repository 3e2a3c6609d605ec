"""What a report is made of, and its three forms: one HTML page, and a Markdown and a CSV file for every table."""

import base64
import csv
import importlib.resources
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jinja2
from PIL import Image

from ..atomic import replacing, write_json
from ..errors import UserError

INDEX = "tables.json"
WIDE_PIXELS = 800
PROSE_LETTERS = 40
SHORT_LINES = 40


@dataclass(frozen=True)
class Table:
    """A table: file name, caption, header and rows of ready text; a line break in a cell stays one.

    ``stage``: which made the numbers. ``strong``: rows in bold. ``note``: what a reader must know of it. ``anchors``:
    fragment ids of the rows, if they have any.
    """

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    stage: str = ""
    strong: frozenset[int] = frozenset()
    note: str = ""
    anchors: tuple[str, ...] = ()
    kind: str = field(default="table", init=False)

    @cached_property
    def prose(self) -> frozenset[int]:
        """Columns of long text, which may be broken into lines."""
        return frozenset(
            j
            for j in range(len(self.header))
            if any(len(line) > PROSE_LETTERS for row in self.rows for line in row[j].split("\n"))
        )

    @cached_property
    def text(self) -> frozenset[int]:
        """Columns of words, set to the left."""
        return frozenset(j for j in range(len(self.header)) if any(row[j][:1].isalpha() for row in self.rows))

    def column_class(self, column: int) -> str:
        """What a column holds: "prose", "text" or "number"."""
        if column in self.prose:
            return "prose"
        return "text" if column in self.text else "number"

    @property
    def short(self) -> bool:
        """Whether it fits on a printed page and may be kept in one piece."""
        return sum(1 + max(cell.count("\n") for cell in row) for row in self.rows) <= SHORT_LINES


@dataclass(frozen=True)
class Figure:
    """A picture as a data URI, its size in pixels, and what it shows in words."""

    source: str
    caption: str
    width: int
    height: int
    kind: str = field(default="figure", init=False)

    @property
    def wide(self) -> bool:
        """Whether it is too wide to be read on a narrow screen, where it scrolls in a box of its own."""
        return self.width > WIDE_PIXELS


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    text: str
    kind: str = field(default="paragraph", init=False)


Block = Table | Figure | Paragraph


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """Fragment id of the heading."""
        return re.sub(r"\W+", "-", self.title.lower())


def figure(image: bytes, caption: str) -> Figure:
    """A PNG or JPEG file as a figure of the page."""
    with Image.open(io.BytesIO(image)) as picture:
        (width, height), kind = picture.size, str(picture.format).lower()
    return Figure(f"data:image/{kind};base64,{base64.b64encode(image).decode()}", caption, width, height)


def write_page(title: str, subtitle: str, sections: Sequence[Section], path: Path) -> Path:
    """The page at ``path``, and its tables in the folder of the same name beside it; each file whole or not at all.

    Raises UserError where ``path`` does not end in .html.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"a report is a file that ends in .html, not {path}")
    source = importlib.resources.files("flows").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(source)
    write_tables(path.with_suffix(""), [block for section in sections for block in section.blocks])
    _write_text(path, template.render(title=title, subtitle=subtitle, sections=sections))
    return path


def write_tables(folder: Path, blocks: Iterable[Block]) -> list[Path]:
    """Every table as Markdown and as CSV; those of an earlier report that are no longer there go."""
    written = []
    for table in (block for block in blocks if isinstance(block, Table)):
        for suffix, text in ((".md", markdown(table)), (".csv", comma_separated(table))):
            written.append(folder / f"{table.name}{suffix}")
            _write_text(written[-1], text)
    names = [path.name for path in written]
    for old in set(_index(folder)) - set(names):
        (folder / Path(old).name).unlink(missing_ok=True)
    write_json(folder / INDEX, names)
    return written


def tables_beside(page: Path) -> list[Path]:
    """The files of the tables of a page that was written, and their index."""
    folder = page.with_suffix("")
    return [*(folder / name for name in _index(folder)), folder / INDEX]


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown, with caption and note."""
    lines = [f"**{table.caption}**", "", _markdown_row(table.header)]
    lines.append("|" + "---|" + "---:|" * (len(table.header) - 1))
    for i, row in enumerate(table.rows):
        lines.append(_markdown_row([f"**{cell}**" if i in table.strong and cell else cell for cell in row]))
    return "\n".join([*lines, *(["", table.note] if table.note else [])]) + "\n"


def comma_separated(table: Table) -> str:
    """Header and rows of a table as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([cell.replace("\n", " ") for cell in row] for row in (table.header, *table.rows))
    return stream.getvalue()


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _index(folder: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads((folder / INDEX).read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

"""The report of a run: one self-contained HTML page made from stored tables, nothing computed again."""

import base64
import importlib.resources
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from .atomic import replacing, write_json
from .contracts import PARTS, REGIONS
from .stages import STAGES
from .store import Manifest, RunRecord, find_output, load_manifest, load_run, record_published, timings
from .tables import Columns, read_table

LABEL_NOTE = (
    "The true labels of a built-in face count the vertices on an outline as part; a vote there is even, and the area "
    "of the masks decides, so thin parts cannot agree fully."
)
ALL_FIVE = {
    "mean_of_five": "mean of five",
    "frequency_weighted": "frequency-weighted",
    "micro": "micro",
    "binary_union": "union of parts",
}


@dataclass(frozen=True)
class Table:
    """A table of the page: caption, header, rows of ready text, and which rows are set in bold."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A picture of the page as a data URI."""

    source: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with its paragraphs, figures and tables."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Fragment id of the heading."""
        return self.title.lower().replace(" ", "-")


def render_report(title: str, subtitle: str, sections: list[Section], path: Path) -> Path:
    """Write the page whole or not at all."""
    source = importlib.resources.files("flows").joinpath("templates/report.html").read_text()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    with replacing(path) as temporary:
        temporary.write_text(template.render(title=title, subtitle=subtitle, sections=sections))
    return path


def write_report(run_dir: Path, path: Path) -> Path:
    """Write the report of a finished run; UserError where a stage's output is missing."""
    record = load_run(run_dir)
    outputs = {stage.name: find_output(run_dir, stage.name) for stage in STAGES}
    manifests = [m for folder in outputs.values() if (m := load_manifest(folder)) is not None]
    dataset = record.config["dataset"]
    source = "synthetic photographs" if dataset["images"] is None else "photographs"
    subtitle = (
        f"Face model {dataset['face_model']}, {source}. Every number is read from the tables of run {run_dir.name}."
    )
    sections = [*report_sections(outputs, timings(run_dir)), _provenance(record, manifests)]
    return render_report("neo3df: editable 3D faces from photographs", subtitle, sections, path)


def publish(run_dir: Path) -> list[Path]:
    """Put what a person wants from a run into its folder: report.html, an editable face.json, and face.glb."""
    example = find_output(run_dir, "evaluate")
    with replacing(run_dir / "face.glb") as temporary:
        shutil.copyfile(example / "face.glb", temporary)
    content = json.loads((example / "face.json").read_text(encoding="utf-8"))
    write_json(run_dir / "face.json", content | {"run": "."})
    published = [write_report(run_dir, run_dir / "report.html"), run_dir / "face.json", run_dir / "face.glb"]
    record_published(run_dir, published)
    return published


def report_sections(outputs: dict[str, Path], timings: list[tuple[str, float, int]]) -> list[Section]:
    """Sections of the page from the finished stages' folders; ``timings`` are (stage, seconds, rows)."""
    metrics = _metrics(outputs)
    pictures = read_table(sorted(outputs["evaluate"].glob("pictures*.parquet")), "pictures")
    return [
        Section("From photo to edited face", figures=_figures(pictures, "headline")),
        Section(
            "Part IoU on validation faces",
            ["Intersection over union of the rendered part labels and the mask, at 224 pixels, averaged over faces."],
            _figures(pictures, "overlays"),
            [iou_table(metrics), all_five_table(metrics)],
        ),
        Section("Part labels", [LABEL_NOTE], _figures(pictures, "labels"), [_label_table(metrics)]),
        Section("Part models", tables=[_model_table(metrics), _regressor_table(metrics), _fine_tune_table(metrics)]),
        Section("Controllers", figures=_figures(pictures, "edits"), tables=[_controller_table(outputs)]),
        Section("Time", tables=[_time_table(timings), _fit_table(metrics)]),
        Section("Set aside", tables=[_rejected_table(outputs)]),
    ]


def iou_table(metrics: dict[str, Columns]) -> Table:
    """Mean IoU per method and part (after NEO-3DF table 2), with the mean of five."""
    rows = metrics["evaluate"]
    methods = list(dict.fromkeys(rows["method"]))
    body = []
    for method in methods:
        cells = [_number(_value(rows, method, part, "iou"), 3) for part in PARTS]
        n = _value(rows, method, "all", "faces")
        body.append([method, *cells, _number(_value(rows, method, "all", "mean_of_five"), 3), f"{n:.0f}"])
    header = ["method", *(_words(part) for part in PARTS), "mean of five", "faces"]
    return Table("IoU per part", header, body, frozenset({len(body) - 1}))


def all_five_table(metrics: dict[str, Columns]) -> Table:
    """The four readings of "all five parts"."""
    rows = metrics["evaluate"]
    methods = list(dict.fromkeys(rows["method"]))
    body = [[m, *(_number(_value(rows, m, "all", key), 3) for key in ALL_FIVE)] for m in methods]
    return Table('Four readings of "all five parts"', ["method", *ALL_FIVE.values()], body)


def _label_table(metrics: dict[str, Columns]) -> Table:
    rows = metrics["transfer_labels"]
    truth = bool(_select(rows, metric="vertex_iou"))
    body = []
    for region in REGIONS:
        cells = [_words(region), f"{_value(rows, 'votes', region, 'vertices'):.0f}"]
        cells.append(_number(_value(rows, "votes", region, "confidence"), 2))
        body.append(cells + ([_number(_value(rows, "votes", region, "vertex_iou"), 3)] if truth else []))
    header = ["part", "vertices", "mean vote share"] + (["IoU with the true labels"] if truth else [])
    return Table("Labels by votes of the training masks", header, body)


def _model_table(metrics: dict[str, Columns]) -> Table:
    rows = metrics["train_segments"]
    keys = (("latent_size", 0), ("vae_rms", 3), ("pca_rms", 3), ("ratio", 3), ("active_dimensions", 0))
    body = [[_words(r), *(_number(_value(rows, "vae", r, key), digits) for key, digits in keys)] for r in REGIONS]
    header = ["part", "latents", "VAE RMS mm", "PCA RMS mm", "VAE / PCA", "active latents"]
    return Table("Held-out reconstruction error of the part models beside PCA of equal size", header, body)


def _regressor_table(metrics: dict[str, Columns]) -> Table:
    rows = metrics["train_regressors"]
    keys = (("F", "rms_mm"), ("mean face", "rms_mm"), ("F", "r_squared"))
    body = [[_words(r), *(_number(_value(rows, method, r, key), 3) for method, key in keys)] for r in REGIONS]
    header = ["part", "F RMS mm", "mean face RMS mm", "R² of F"]
    return Table("Image regressors, on training faces that were held back", header, body)


def _fine_tune_table(metrics: dict[str, Columns]) -> Table:
    rows = metrics["fine_tune"]
    keys = ("total", "shape", "parts", "kl")
    body = [[when, *(_number(_value(rows, when, "all", key), 3) for key in keys)] for when in ("before", "after")]
    header = ["fine-tuning", "loss", "shape mm²", "parsing", "KL"]
    return Table("Fine-tuning on masks, on training faces that were held back", header, body)


def _controller_table(outputs: dict[str, Path]) -> Table:
    rows = read_table(sorted(outputs["fit_controllers"].glob("controllers*.parquet")), "controllers")
    body = [
        [f"{part.replace('_', ' ')}: {name.replace('_', ' ')}", *(_number(v, 2) for v in values)]
        for part, name, *values in zip(
            rows["part"], rows["name"], rows["mean"], rows["sigma"], rows["response"], rows["leak"], strict=True
        )
    ]
    header = ["controller", "mean mm", "sigma mm", "response per sigma asked", "largest other response"]
    return Table("Controllers: what +1 sigma moves, measured after decoding (1.00 is exact)", header, body)


def _time_table(timings: list[tuple[str, float, int]]) -> Table:
    total = sum(seconds for _, seconds, _ in timings)
    body = [
        [_words(stage), _number(seconds, 1), f"{100 * seconds / total:.0f} %", f"{rows:,}"]
        for stage, seconds, rows in timings
    ]
    return Table("Where the time went", ["stage", "seconds", "share", "rows written"], body)


def _fit_table(metrics: dict[str, Columns]) -> Table:
    rows = metrics["fit_photos"]
    body = [
        [method, part, _words(metric), _number(value, 3)]
        for method, part, metric, value in zip(rows["method"], rows["part"], rows["metric"], rows["value"], strict=True)
    ]
    return Table("Fitting to masks: gain and realism", ["method", "part", "quantity", "value"], body)


def _rejected_table(outputs: dict[str, Path]) -> Table:
    rows = read_table(sorted(outputs["build_dataset"].glob("rejected*.parquet")), "rejected")
    body = [list(row) for row in zip(rows["path"], rows["code"], rows["detail"], strict=True)]
    return Table(f"{len(body)} inputs set aside", ["input", "code", "reason"], body)


PATHS = ("images", "masks", "manifest", "parser_weights", "encoder_weights")
"""Settings that name places of one machine."""


def _provenance(record: RunRecord, manifests: list[Manifest]) -> Section:
    """What was run: keys, versions and the resolved configuration."""
    rows = [[m.stage, m.key, " ".join(f"{k} {v}" for k, v in m.packages.items()), m.created] for m in manifests]
    stages = Table("Stages of this run", ["stage", "key", "packages", "finished"], rows)
    settings = [
        [f"{section}.{key}", str(value)]
        for section, values in record.config.items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
        if key not in PATHS and section != "run_dir"
    ]
    return Section("How it was made", tables=[stages, Table("Configuration", ["key", "value"], settings)])


def _metrics(outputs: dict[str, Path]) -> dict[str, Columns]:
    found = {stage: sorted(folder.glob("metrics*.parquet")) for stage, folder in outputs.items()}
    return {stage: read_table(files, "metrics") for stage, files in found.items() if files}


def _figures(pictures: Columns, section: str) -> list[Figure]:
    figures = []
    for where, image, caption in zip(pictures["section"], pictures["image"], pictures["caption"], strict=True):
        if where == section:
            kind = "png" if image[:4] == b"\x89PNG" else "jpeg"
            figures.append(Figure(f"data:image/{kind};base64,{base64.b64encode(image).decode()}", caption))
    return figures


def _select(rows: Columns, **wanted: Any) -> list[int]:
    n = len(rows["method"])
    return [i for i in range(n) if all(rows[key][i] == value for key, value in wanted.items())]


def _value(rows: Columns, method: str, part: str, metric: str) -> float:
    found = _select(rows, method=method, part=part, metric=metric)
    return float(rows["value"][found[0]]) if found else float("nan")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"

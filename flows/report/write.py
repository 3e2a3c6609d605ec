"""The report of a run, or of several as one: a self-contained HTML page of what stages stored, rendering nothing.

Sections whose stage a run does not have are left out, or say which setting brings them.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..atomic import replacing, write_json
from ..errors import UserError
from ..methods import MASK, Method
from ..store import find_output, record_published
from ..tables import Columns
from .data import Evidence, load_evidence
from .models import (
    controller_table,
    fine_tune_table,
    gain_table,
    label_table,
    model_table,
    per_face_table,
    reach_table,
    realism_table,
    registration_table,
    regressor_table,
    rejected_table,
    shape_table,
    time_table,
)
from .notes import how_it_was_made, what_differs
from .overlaps import headline_table, paired_table, readings_table, table_2, table_3, who_is_ahead
from .page import Block, Figure, Paragraph, Section, Table, figure, tables_beside, write_page
from .paper_numbers import TABLE_2
from .scores import Scores, scores_of
from .words import number

LABEL_NOTE = (
    "The true labels of a built-in face count the vertices on an outline as part; a vote there is even, and the area "
    "of the masks decides, so thin parts cannot agree fully."
)
IOU_NOTE = "Intersection over union of the rendered part labels and the reference, at 224 pixels, averaged over faces."
FIGURES = ("figure-4", "figure-5", "figure-6", "figure-7")
NO_RIVALS = "No rivals were trained in this run: baselines.models names those to compare with."
NO_CELLS = "Table 3 was not made in this run: cells.n_faces says on how many faces."


def write_report(folders: Path | Sequence[Path], path: Path) -> Path:
    """Write the report of a finished run, or of several with the same settings and disjoint validation faces, pooled.

    Its tables go into the folder beside it that has its name. UserError where a run is unfinished or does not fit.
    """
    evidence = load_evidence([folders] if isinstance(folders, Path) else folders)
    return write_page(
        "neo3df: editable 3D faces from photographs", _subtitle(evidence), report_sections(evidence), path
    )


def publish(run_dir: Path) -> list[Path]:
    """Put what a person wants from a run into its folder: report.html, an editable face.json, and face.glb.

    The tables of the report lie in its folder ``report``.
    """
    example = find_output(run_dir, "evaluate")
    with replacing(run_dir / "face.glb") as temporary:
        shutil.copyfile(example / "face.glb", temporary)
    content = json.loads((example / "face.json").read_text(encoding="utf-8"))
    write_json(run_dir / "face.json", content | {"run": "."})
    page = write_report(run_dir, run_dir / "report.html")
    published = [page, run_dir / "face.json", run_dir / "face.glb"]
    record_published(run_dir, [*published, *tables_beside(page)])
    return published


def report_sections(evidence: Evidence) -> list[Section]:
    """Sections of the page, those without anything to show left out."""
    overlaps = evidence.together("overlaps")
    if overlaps is None:
        raise UserError(f"evaluate of {evidence.runs[0].folder} has no overlaps; run neo3df run --refresh evaluate")
    scores = scores_of(overlaps, MASK)
    pictures = evidence.first_table("evaluate", "pictures")
    sections = [
        Section("From photo to edited face", [*_figures(pictures, "headline"), headline_table(scores)]),
        _overlap_section(evidence, overlaps, scores, pictures),
        _settings_section(evidence),
        _shape_section(evidence),
        _edit_section(evidence, pictures),
        *_model_sections(evidence, pictures),
        _fit_section(evidence),
        _time_section(evidence, scores),
        _tables("Set aside", (rejected_table, evidence.table("build_dataset", "rejected"))),
        _tables("The evaluator's own checks", (registration_table, evidence.table("evaluate", "registration"))),
        what_differs(evidence, scores),
        how_it_was_made(evidence),
    ]
    return [section for section in sections if section.blocks]


def _subtitle(evidence: Evidence) -> str:
    dataset = evidence.config["dataset"]
    model = str(dataset["face_model"]).replace("\\", "/").rsplit("/", 1)[-1]
    source = "synthetic photographs" if dataset["images"] is None else "photographs"
    names = ", ".join(run.folder.resolve().name for run in evidence.runs)
    if len(evidence.runs) == 1:
        return f"Face model {model}, {source}. Every number is read from the tables of run {names}."
    return (
        f"Face model {model}, {source}. Every number is read from the tables of runs {names}: of faces, over all of "
        "them; of models, the mean. Pictures and controllers are of the first."
    )


def _overlap_section(
    evidence: Evidence, overlaps: Columns, scores: Mapping[Method, Scores], pictures: Columns | None
) -> Section:
    """Table 2 and figure 3, and the same against every parser."""
    evaluated = evidence.metrics("evaluate")
    blocks: list[Block] = [Paragraph(IOU_NOTE)]
    if not evidence.config["baselines"]["models"]:
        blocks.append(Paragraph(NO_RIVALS))
    if said := who_is_ahead(scores):
        blocks.append(Paragraph(said))
    masks = "the masks"
    blocks += [table_2(scores, masks, "table-2", TABLE_2), *_present(paired_table(scores, masks, "paired"))]
    blocks.append(readings_table(scores, evaluated))
    for parser in sorted(set(overlaps["reference"]) - {MASK}):
        against = scores_of(overlaps, parser)
        said = f"labels of the parser {parser}"
        if evaluated is not None:
            five = evaluated.value(parser, "all", "parser_iou")
            blocks.append(
                Paragraph(f"The parser {parser} itself agrees with the masks to a mean of {number(five, 3)}.")
            )
        blocks.append(table_2(against, said, f"table-2-{parser}", {}))
        blocks += _present(paired_table(against, said, f"paired-{parser}"))
    return Section("Part IoU on validation faces", [*blocks, *_figures(pictures, "overlays")])


def _settings_section(evidence: Evidence) -> Section:
    """Table 3, or how to get it."""
    cells = evidence.table("compare_settings", "overlaps")
    if cells is None:
        return Section("What offsets and blending are worth", [Paragraph(NO_CELLS)])
    scores = scores_of(cells, MASK)
    tables: list[Block] = [
        table_3(scores, lambda found: found.mean_of_five, "mean of five", "table-3"),
        table_3(scores, lambda found: found.frequency_weighted, "weighted by area", "table-3-weighted"),
    ]
    return Section("What offsets and blending are worth", tables)


def _shape_section(evidence: Evidence) -> Section:
    return _tables("Shape error", (shape_table, evidence.together("shape_errors")))


def _edit_section(evidence: Evidence, pictures: Columns | None) -> Section:
    """Controllers and what edits move: figures 4 to 7 and their numbers."""
    edits = evidence.first_table("compare_edits", "pictures")
    blocks: list[Block] = [*_figures(pictures, "edits")]
    reach = evidence.table("compare_edits", "edit_reach")
    blocks += [] if reach is None else [reach_table(reach)]
    blocks += [shown for section in FIGURES for shown in _figures(edits, section)]
    names = ("part", "name", "mean", "sigma", "leak")
    controllers = evidence.first_table("fit_controllers", "controllers")
    if controllers is not None:
        blocks.append(controller_table({key: controllers[key] for key in names}, evidence.metrics("fit_controllers")))
    return Section("Edits", blocks)


def _model_sections(evidence: Evidence, pictures: Columns | None) -> list[Section]:
    labels = _tables("Part labels", (label_table, evidence.metrics("transfer_labels")))
    learned = _tables(
        "Part models",
        (model_table, evidence.metrics("train_segments")),
        (regressor_table, evidence.metrics("train_regressors")),
        (fine_tune_table, evidence.metrics("fine_tune")),
    )
    shown = [Paragraph(LABEL_NOTE), *_figures(pictures, "labels"), *labels.blocks]
    return [Section(labels.title, shown if labels.blocks else []), learned]


def _fit_section(evidence: Evidence) -> Section:
    fitted = evidence.metrics("fit_photos")
    if fitted is None:
        return Section("Fitting to masks", [])
    tables: list[Block] = [gain_table(fitted), realism_table(fitted, evidence.metrics("compare_rivals"))]
    return Section("Fitting to masks", tables)


def _time_section(evidence: Evidence, scores: Mapping[Method, Scores]) -> Section:
    timings = [(m.stage, m.seconds, m.rows) for run in evidence.runs for m in run.manifests.values()]
    faces = len(next(iter(scores.values())).face_id)
    return Section("Time", [time_table(timings), per_face_table(evidence, faces)])


def _tables(title: str, *makers: tuple) -> Section:
    """A section of tables, each made of what was read for it; those for which there is nothing are left out."""
    return Section(title, [make(found) for make, found in makers if found is not None])


def _present(table: Table | None) -> list[Table]:
    return [] if table is None else [table]


def _figures(pictures: Columns | None, section: str) -> list[Figure]:
    if pictures is None:
        return []
    rows = zip(pictures["section"], pictures["image"], pictures["caption"], strict=True)
    return [figure(image, caption) for where, image, caption in rows if where == section]

"""What a reader must know of the numbers: how each stage was made, and in what the run differs from the paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..methods import STEPS, Method
from ..store import digest
from .data import Evidence, Run, settings_of
from .page import Block, Paragraph, Section, Table
from .paper_numbers import PHOTOGRAPHS
from .scores import Scores

ENCODERS = {"small": "a small network trained here", "facenet": "FaceNet", "arcface": "ArcFace"}


def how_it_was_made(evidence: Evidence) -> Section:
    """Commands, keys, versions and times of every stage, and the resolved configuration."""
    rows, anchors = [], []
    stages = dict.fromkeys(name for run in evidence.runs for name in run.manifests)
    for stage in stages:
        for i, run in enumerate(run for run in evidence.runs if stage in run.manifests):
            rows.append(_made(run, stage))
            anchors.append("" if i else f"made-{stage}")
    header = ["stage", "run", "command", "key, and settings", "seconds, when, and on what", "packages"]
    note = (
        "CONFIG is the file the run was made with; its values are below. Keys are digests of a stage's settings, of "
        "all it reads and of package versions; below each that of its settings alone."
    )
    made = Table("stages", "Stages", header, rows, note=note, anchors=tuple(anchors))
    settings = [[key, str(value)] for key, value in settings_of(evidence.runs[0]).items() if key != "run_dir"]
    caption = "Configuration" if len(evidence.runs) == 1 else f"Configuration of {evidence.runs[0].folder.name}"
    blocks: list[Block] = [made, Table("configuration", caption, ["key", "value"], settings)]
    return Section("How it was made", blocks)


def _made(run: Run, stage: str) -> list[str]:
    manifest = run.manifests[stage]
    packages = "\n".join(f"{name} {version}" for name, version in manifest.packages.items())
    command = f"neo3df run -c CONFIG\n--only {stage}"
    keys = f"{manifest.key}\n{digest(manifest.config)}"
    when = f"{manifest.seconds:.1f}\n{manifest.created[:16].replace('T', ' ')}\n{manifest.machine}".rstrip()
    return [stage, run.folder.resolve().name, command, keys, when, packages]


def what_differs(evidence: Evidence, scores: Mapping[Method, Scores]) -> Section:
    """This run beside NEO-3DF, as far as it bears on the numbers; from the configuration and the tables."""
    config = evidence.config
    rows = [
        ["face model", _face_model(config), "BFM 2009 front crop, 35,709 vertices"],
        [
            "photographs measured on",
            _measured(evidence, scores),
            f"the first {PHOTOGRAPHS:,} of CelebAMask-HQ",
        ],
        ["photographs learned from", _learned(evidence), "25,000 of CelebAMask-HQ with masks, and FFHQ for shapes"],
        ["masks", _masks(config), "hand-made ones of CelebAMask-HQ"],
        ["expression and pose", _pose(config), "a Deep3DMM network's, held fixed"],
        ["image encoder", _encoder(config), "FaceNet"],
        ["part models", _part_models(config), "95,000 shapes estimated from photographs, random start"],
        ["fits start from", _start(config), "the fine-tuned network"],
        ["fits move", _moves(config), "controls of the parts, and their places in y and z"],
        ["steps of a fit", _steps(config), "20 of Adam, 1e-3, in units of its own"],
        ["table 2", _step_words(scores), "rivals and NEO-3DF fine-tuned, unblended; none fitted to the photograph"],
        [
            "all five parts",
            "mean of five, and weighted by area",
            "one number, not defined; closest to weighted by area",
        ],
        ["hardware", _hardware(evidence), "an NVIDIA V100, 31 s for a step of a blended fit"],
        ["how sure", "95 % bootstrap over people, differences paired", "not given"],
    ]
    return Section(
        "What differs from the paper",
        [
            Paragraph(
                "Rows of the paper stand beside ours for orientation only: an IoU of thin parts depends as much on the "
                "crop and on how masks are drawn as on the method. Compare methods within one column of this report."
            ),
            Table("differences", "This report and NEO-3DF (Yan et al. 2022)", ["", "here", "in the paper"], rows),
        ],
    )


def _face_model(config: Mapping[str, Any]) -> str:
    name = str(config["dataset"]["face_model"])
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _measured(evidence: Evidence, scores: Mapping[Method, Scores]) -> str:
    first = next(iter(scores.values()))
    kind = "synthetic faces" if evidence.config["dataset"]["images"] is None else "photographs"
    chosen = "clean " if evidence.config["fit"]["photos"] == "clean" else ""
    runs = f", in {len(evidence.runs)} runs" if len(evidence.runs) > 1 else ""
    return f"{len(first.face_id)} {chosen}{kind} of {len(np.unique(first.people))} people{runs}"


def _learned(evidence: Evidence) -> str:
    faces = evidence.table("build_dataset", "faces", ["split", "clean", "has_mask"])
    if faces is None:
        return "not recorded"
    train = np.array(faces["split"]) == "train"
    masked = train & faces["clean"].astype(bool) & faces["has_mask"].astype(bool)
    each = " on average" if len(evidence.runs) > 1 else ""
    n, m = (round(count / len(evidence.runs)) for count in (train.sum(), masked.sum()))
    return f"{n}{each}, {m} of them clean and with masks; of other people"


def _masks(config: Mapping[str, Any]) -> str:
    dataset = config["dataset"]
    if dataset["images"] is None:
        return "exact, drawn with the faces"
    parser = "" if dataset["parser"] == "none" else f", or of the parser {dataset['parser']} where there is none"
    return f"those of the folder{parser}{_second_reference(config)}"


def _second_reference(config: Mapping[str, Any]) -> str:
    parser = config["evaluate"]["parser"]
    if parser == "none":
        return ""
    if parser == "small":
        how = "trained on the masks of the training people"
    else:
        how = "trained on CelebAMask-HQ, where it may have seen these photographs"
    return f"; beside them the parser {parser}, {how}"


def _pose(config: Mapping[str, Any]) -> str:
    by = {"landmarks": "a fit to 68 landmarks", "deep3dmm": "a Deep3DMM network's"}[config["dataset"]["estimator"]]
    free = [key for key in ("expression", "pose") if config["fit"][key]]
    return f"{by}; {' and '.join(free)} refined by fits, of the rivals too" if free else f"{by}, held fixed"


def _encoder(config: Mapping[str, Any]) -> str:
    name = config["regressors"]["encoder"]
    return ENCODERS.get(name, name)


def _part_models(config: Mapping[str, Any]) -> str:
    segments = config["segments"]
    start = {"pca": "started from PCA", "random": "random start"}[segments["init"]]
    return f"{segments['n_shapes']:,} random shapes, {start}, blending radius {segments['radius_mm']:g} mm"


def _start(config: Mapping[str, Any]) -> str:
    return {"network": "the fine-tuned network", "landmark": "the landmark fit"}[config["fit"]["start"]]


def _moves(config: Mapping[str, Any]) -> str:
    fit = config["fit"]
    variables = {"none": "no latents", "global": "identity of the global 3DMM"}.get(fit["variables"], fit["variables"])
    offsets = {"none": "", "yz": ", places in y and z", "xyz": ", places in x, y and z"}[fit["offsets"]]
    modes = ", modes learned from masks" if fit["modes"] else ""
    return f"{variables}{offsets}{modes}{', blended' if fit['blend'] else ', not blended'}"


def _steps(config: Mapping[str, Any]) -> str:
    fit = config["fit"]
    return f"{fit['iterations']}, {fit['learning_rate']:g} in natural units, prior {fit['prior']:g}, {fit['loss']} loss"


def _hardware(evidence: Evidence) -> str:
    machines = {m.machine for run in evidence.runs for m in run.manifests.values()}
    return "; ".join(sorted(machine or "not recorded" for machine in machines))


def _step_words(scores: Mapping[Method, Scores]) -> str:
    taken = {step for _, step in scores}
    steps = ", ".join(step for step in STEPS if step in taken)
    return f"every model as far as it goes: {steps}; networks unblended"

"""Tables of what was learned and what it costs: models, controllers, errors, edits, fits, time, inputs set aside."""

from collections.abc import Sequence

import numpy as np

from ..contracts import PARTS, REGIONS
from ..methods import FITTED, OURS, TRUTH, in_table_order, method_name
from ..tables import Columns
from .confidence import estimate
from .data import Evidence, Metrics
from .page import Table
from .scores import SMALLEST_PART
from .words import interval, number, words


def label_table(labels: Metrics) -> Table:
    """Voted vertices of every region."""
    truth = labels.has("vertex_iou")
    rows = []
    for region in REGIONS:
        values = [(labels.value("votes", region, key), digits) for key, digits in (("vertices", 0), ("confidence", 2))]
        values += [(labels.value("votes", region, "vertex_iou"), 3)] if truth else []
        rows.append([words(region), *(number(*value) for value in values)])
    header = ["part", "vertices", "mean vote share"] + (["IoU with the true labels"] if truth else [])
    return Table("labels", "Labels by votes of the training masks", header, rows, "transfer_labels")


def model_table(segments: Metrics) -> Table:
    """Held-out error of the part models."""
    keys = {"latents": ("latent_size", 0), "VAE RMS mm": ("vae_rms", 3), "PCA RMS mm": ("pca_rms", 3)}
    keys |= {"VAE / PCA": ("ratio", 3), "active latents": ("active_dimensions", 0)}
    rows = [
        [words(r), *(number(segments.value("vae", r, key), digits) for key, digits in keys.values())] for r in REGIONS
    ]
    caption = "Held-out reconstruction error of the part models beside PCA of equal size"
    return Table("part-models", caption, ["part", *keys], rows, "train_segments")


def regressor_table(regressors: Metrics) -> Table:
    """What the image regressors know of faces they have not seen."""
    keys = (("F", "rms_mm"), ("mean face", "rms_mm"), ("F", "r_squared"))
    rows = [[words(r), *(number(regressors.value(method, r, key), 3) for method, key in keys)] for r in REGIONS]
    header = ["part", "F RMS mm", "mean face RMS mm", "R² of F"]
    caption = "Image regressors, on training faces that were held back"
    return Table("regressors", caption, header, rows, "train_regressors")


def fine_tune_table(tuned: Metrics) -> Table:
    """Losses before and after fine-tuning."""
    keys = ("total", "shape", "parts", "kl")
    rows = [[when, *(number(tuned.value(when, "all", key), 3) for key in keys)] for when in ("before", "after")]
    header = ["fine-tuning", "loss", "shape mm²", "parsing", "KL"]
    return Table(
        "fine-tuning", "Fine-tuning on masks, on training faces that were held back", header, rows, "fine_tune"
    )


def controller_table(controllers: Columns, measured: Metrics | None) -> Table:
    """The 30 controllers: what +3 and -3 sigma move."""
    rows = []
    names = zip(controllers["part"], controllers["name"], strict=True)
    for row, (part, name) in enumerate(names):
        up = down = float("nan")
        if measured is not None:
            up, down = (measured.value("controllers", part, f"response_{way}.{name}") for way in ("up", "down"))
        values = [controllers["mean"][row], controllers["sigma"][row], up, down, controllers["leak"][row]]
        rows.append([f"{words(part)}: {words(name)}", *(number(float(value), 2) for value in values)])
    header = ["controller", "mean mm", "sigma mm", "response at +3σ", "response at −3σ", "largest other response"]
    caption = "Controllers: what one moves per sigma asked, measured after decoding (1.00 is exact)"
    return Table("controllers", caption, header, rows, "fit_controllers")


def shape_table(errors: Columns) -> Table:
    """Root mean square distance from the true neutral face, per region."""
    methods: dict[tuple[str, str], list[int]] = {}
    for row, method in enumerate(zip(errors["model"], errors["step"], strict=True)):
        methods.setdefault(method, []).append(row)
    order, people, rows = in_table_order(methods), np.array(errors["person"]), []
    for method in order:
        chosen = methods[method]
        whole = estimate(errors["rms_face"][chosen].astype(float), people[chosen])
        regions = [number(float(value), 2) for value in errors["rms"][chosen].mean(0)]
        rows.append([method_name(*method), *regions, number(whole.mean, 2), interval(whole, 2), str(len(chosen))])
    header = ["method", *(words(region) for region in REGIONS), "whole face", "95 %", "faces"]
    if TRUTH in errors["reference"]:
        caption, note = "RMS vertex distance from the true neutral face, mm", ""
    else:
        caption = "RMS vertex distance from the neutral face that was estimated from landmarks, mm"
        note = (
            "The truth is not known for photographs: this says how far a method goes from the estimate, not how well."
        )
    strong = frozenset(i for i, method in enumerate(order) if method == (OURS, FITTED))
    return Table("shape-errors", caption, header, rows, "evaluate", strong, note)


def reach_table(reach: Columns) -> Table:
    """What edits of one region move elsewhere (the numbers of NEO-3DF's figure 4); of several runs, the mean."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(reach["model"], reach["region"], strict=True)):
        found.setdefault(key, []).append(row)
    rows = []
    for (model, region), chosen in found.items():
        inside, outside, beyond = (float(np.mean(reach[key][chosen])) for key in ("inside", "outside", "beyond"))
        cells = [inside, outside, outside / inside if inside else np.nan, beyond]
        cells += [float(np.max(reach[key][chosen])) for key in ("max_beyond", "max_elsewhere")]
        rows.append([model, words(region), *(number(cell, 3) for cell in cells)])
    header = [
        "model",
        "edited",
        "inside mm",
        "outside mm",
        "outside / inside",
        "beyond mm",
        "most beyond",
        "most elsewhere",
    ]
    note = (
        "Each control of a region alone at +3 and −3 sigma. Beyond: outside the part and farther from its border than "
        "seams are blended. Elsewhere: outside the part and all that blending may move."
    )
    return Table("leakage", "How far edits reach, mean displacement in mm", header, rows, "compare_edits", note=note)


def registration_table(moved: Columns) -> Table:
    """What a wrong pixel does to the overlap; of several runs, the mean weighted by faces."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, subject in enumerate(moved["subject"]):
        shift = {key: int(moved[key][row]) for key in ("down", "right", "dilated")}
        said = ", ".join(f"{pixels} px {key}" for key, pixels in shift.items() if pixels) or "as drawn"
        found.setdefault((subject, said), []).append(row)
    rows = []
    for (subject, said), chosen in sorted(found.items(), key=lambda item: item[0][0], reverse=True):
        counts = moved["n"][chosen]
        mean = (np.nan_to_num(moved["iou"][chosen]) * counts).sum(0) / np.where(counts.sum(0), counts.sum(0), np.nan)
        rows.append([f"{subject}, {said}", *(number(float(value), 2) for value in mean)])
    note = (
        "The mean face against itself and the fitted faces against their masks, after moving or growing what was "
        "drawn. Differences between methods below what one pixel does may be a matter of registration."
    )
    header = ["drawn, and moved", *(words(part) for part in PARTS)]
    return Table("registration", "IoU after a shift of 1 to 3 pixels", header, rows, "evaluate", note=note)


def time_table(timings: Sequence[tuple[str, float, int]]) -> Table:
    """(stage, seconds, rows) of every stage; of several runs, the sum."""
    summed: dict[str, tuple[float, int]] = {}
    for stage, seconds, rows in timings:
        before = summed.get(stage, (0.0, 0))
        summed[stage] = (before[0] + seconds, before[1] + rows)
    total = sum(seconds for seconds, _ in summed.values())
    body = [
        [words(stage), number(seconds, 1), f"{100 * seconds / total:.0f} %", f"{rows:,}"]
        for stage, (seconds, rows) in summed.items()
    ]
    header = ["stage", "seconds", "share", "rows written"]
    return Table("time", "Where the time went", header, body, note="Wall time, as measured when each stage was made.")


def per_face_table(evidence: Evidence, faces: int) -> Table:
    """Seconds per validation face of the stages that treat one after the other."""
    rows = []
    for stage in ("fit_photos", "compare_rivals", "compare_settings", "evaluate"):
        found = [run.manifests[stage] for run in evidence.runs if stage in run.manifests]
        if faces and any(manifest.rows > 5 for manifest in found):
            rows.append([words(stage), number(sum(manifest.seconds for manifest in found) / faces, 2)])
    return Table("time-per-face", f"Seconds per validation face ({faces})", ["stage", "seconds"], rows)


REALISM = {
    "flipped_fraction": "flipped triangles",
    "moved_mean": "mean motion mm",
    "latent_rms": "latents RMS σ",
}


def realism_table(fitted: Metrics, rivals: Metrics | None) -> Table:
    """What the overlap of the fits cost: a fit that leaves the space of faces may overlap well."""
    sources = [(fitted, method) for method in dict.fromkeys(key[0] for key in fitted.measured)]
    if rivals is not None:
        measured = (key[0] for key in rivals.measured if key[2] in REALISM)
        sources += [(rivals, method) for method in dict.fromkeys(measured)]
    rows = []
    for metrics, method in sources:
        name = f"{OURS} ({words(method)})" if metrics is fitted else method
        rows.append([name, *(number(metrics.value(method, "all", key), 4 if "flip" in key else 2) for key in REALISM)])
    return Table("realism", "Fitting to masks: what it cost", ["fitted", *REALISM.values()], rows, "fit_photos")


def gain_table(fitted: Metrics) -> Table:
    """What fitting to the mask gained per part."""
    methods = dict.fromkeys(key[0] for key in fitted.measured)
    rows = []
    for part in PARTS:
        values = [fitted.value(method, part, key) for method in methods for key in ("mean_gain_iou", "share_improved")]
        rows.append([words(part), *(number(value, 3) for value in values)])
    header = ["part", *(title for _ in methods for title in ("mean gain of IoU", "share of faces improved"))]
    note = f"A part counts where its mask has {SMALLEST_PART} pixels or more."
    return Table("gain", "Fitting to masks: what it gained", header, rows, "fit_photos", note=note)


def rejected_table(rejected: Columns) -> Table:
    """Inputs that were set aside, each once."""
    rows = [
        list(row) for row in dict.fromkeys(zip(*(rejected[key] for key in ("path", "code", "detail")), strict=True))
    ]
    return Table("set-aside", f"{len(rows)} inputs set aside", ["input", "code", "reason"], rows, "build_dataset")

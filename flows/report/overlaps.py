"""Tables of part overlaps: NEO-3DF's table 2, paired differences, and its table 3, from the stored pixel counts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..contracts import PARTS
from ..methods import FITTED, OURS, Method, in_headline, method_name
from .confidence import Estimate, estimate, paired_difference
from .data import Metrics
from .page import Table
from .paper_numbers import PHOTOGRAPHS, TABLE_3
from .scores import Scores
from .words import NOTHING, interval, number, signed, words

PAPER = "paper, other data"
AHEAD = "▲"
CELLS = tuple(TABLE_3)
SEAMS = ("not blended", "blended")
STEP_SIZES = {"natural": "natural steps", "literal": "the paper's steps (1e-3)"}
START = "start"
PART_WORDS = [words(part) for part in PARTS]


def headline_table(scores: Mapping[Method, Scores]) -> Table:
    """Mean IoU of the short list of methods."""
    chosen = {method: found for method, found in scores.items() if in_headline(*method)}
    rows = []
    for method, found in chosen.items():
        name, *parts, mean, limits, _, faces = _iou_row(method, found)
        rows.append([name, mean, limits, *parts, faces])
    header = ["method", "mean of five", "95 %", *PART_WORDS, "faces"]
    caption = "Part IoU on validation faces: nobody of them was learned from"
    return Table("headline", caption, header, rows, "evaluate", _strong(list(chosen)))


def table_2(
    scores: Mapping[Method, Scores], reference: str, name: str, printed: Mapping[str, Sequence[float]]
) -> Table:
    """IoU per part of every model and step, with the ``printed`` figures of the paper below (after NEO-3DF table 2)."""
    rows = [_iou_row(method, found) for method, found in scores.items()]
    for model, values in printed.items():
        five = [*values[:5], float(np.mean(values[:5]))]
        cells = [number(value, 3) for value in five]
        rows.append([f"{PAPER}: {model}", *cells, NOTHING, f"{values[5]:.3f}*", str(PHOTOGRAPHS)])
    header = ["method", *PART_WORDS, "mean of five", "95 %", "frequency-weighted", "faces"]
    note = "Means over faces where the reference has the part; intervals are bootstrapped over people."
    if printed:
        note += (
            ' Rows of the paper are of other photographs and another face model. * is the paper\'s "all five parts", '
            "which it does not define."
        )
    return Table(name, f"IoU per part against {reference}", header, rows, "evaluate", _strong(list(scores)), note)


def readings_table(scores: Mapping[Method, Scores], evaluated: Metrics | None) -> Table:
    """The four readings of "all five parts"."""
    rows = []
    for method, found in scores.items():
        union = evaluated.value(method_name(*method), "all", "binary_union") if evaluated else np.nan
        values = (_mean(found.mean_of_five), _mean(found.frequency_weighted), found.micro, union)
        rows.append([method_name(*method), *(number(value, 3) for value in values)])
    header = ["method", "mean of five", "frequency-weighted", "all pixels together", "union of parts"]
    return Table("readings", 'Four readings of "all five parts"', header, rows, "evaluate", _strong(list(scores)))


def paired_table(scores: Mapping[Method, Scores], reference: str, name: str) -> Table | None:
    """Every other method minus NEO-3DF after fitting, of the same faces; None where NEO-3DF was not fitted."""
    if (OURS, FITTED) not in scores:
        return None
    rows = []
    for method, found in scores.items():
        if method != (OURS, FITTED):
            rows.append([method_name(*method), *map(_difference_cell, differences(found, scores[OURS, FITTED]))])
    note = (
        f"{AHEAD}: ahead of NEO-3DF; where the interval leaves out 0, by more than the choice of people explains. "
        "Negative: behind."
    )
    caption = f"Difference of IoU to NEO-3DF after fitting, face by face, with its 95 % interval ({reference})"
    return Table(name, caption, ["method", *PART_WORDS, "mean of five"], rows, "evaluate", note=note)


def differences(method: Scores, ours: Scores) -> list[Estimate]:
    """Paired differences of the five parts and of their mean."""
    pairs = [*zip(method.iou.T, ours.iou.T, strict=True), (method.mean_of_five, ours.mean_of_five)]
    return [paired_difference(theirs, our, ours.people) for theirs, our in pairs]


def who_is_ahead(scores: Mapping[Method, Scores]) -> str:
    """In words, which methods are ahead of NEO-3DF after fitting, and where; nothing where it was not fitted."""
    if (OURS, FITTED) not in scores:
        return ""
    compared = {
        method_name(*method): differences(found, scores[OURS, FITTED])
        for method, found in scores.items()
        if method != (OURS, FITTED)
    }
    said = []
    for certain, words_for in ((True, "by more than chance"), (False, "within chance")):
        ahead = [
            f"{name} on {', '.join(where)}"
            for name, found in compared.items()
            if (where := _where_ahead(found, certain=certain))
        ]
        said += [f"Ahead of NEO-3DF after fitting {words_for}: {'; '.join(ahead)}."] if ahead else []
    return " ".join(said) or "NEO-3DF after fitting is ahead of every other method on every part."


def _where_ahead(found: Sequence[Estimate], *, certain: bool) -> list[str]:
    names = (*PART_WORDS, "the mean of five")
    pairs = zip(names, found, strict=True)
    return [f"{name} ({signed(d.mean, 3)})" for name, d in pairs if d.mean > 0 and d.certain == certain]


def table_3(scores: Mapping[Method, Scores], measure: Callable[[Scores], NDArray], title: str, name: str) -> Table:
    """The eight cells of NEO-3DF's table 3 for both step sizes, what blending is worth, and the paper's figures."""
    rows = []
    for step, step_words in ((START, "before any step"), *STEP_SIZES.items()):
        found = {how: [scores.get((f"{cell}, {how}", step)) for cell in CELLS] for how in SEAMS}
        for how, row in found.items():
            cells = [NOTHING if s is None else _mean_cell(estimate(measure(s), s.people)) for s in row]
            rows.append([f"{step_words}, {how}", *cells])
        gains = [
            NOTHING
            if off is None or on is None
            else signed_cell(paired_difference(measure(on), measure(off), on.people))
            for off, on in zip(*found.values(), strict=True)
        ]
        rows.append([f"{step_words}: what blending adds", *gains])
    for i, how in enumerate(SEAMS):
        rows.append([f"{PAPER}: {how}", *(number(TABLE_3[cell][i], 3) for cell in CELLS)])
    rows.append([f"{PAPER}: what blending adds", *(signed(on - off, 3) for off, on in TABLE_3.values())])
    faces = max((_faces(found) for found in scores.values()), default=0)
    caption = f"Adjusting to the mask in 20 steps, {title}: what may move, with and without blending ({faces} faces)"
    strong = frozenset(i for i, row in enumerate(rows) if row[0].endswith("adds"))
    note = (
        "Means with 95 % intervals over people; differences are of the same faces. The paper's figures are of its own "
        '"all five parts", which it does not define, and of an unknown number of photographs.'
    )
    return Table(name, caption, ["steps and seams", *CELLS], rows, "compare_settings", strong, note)


def signed_cell(found: Estimate) -> str:
    """A difference over its interval."""
    return f"{signed(found.mean, 3)}\n{interval(found, 3, signed)}"


def _difference_cell(found: Estimate) -> str:
    return f"{AHEAD} {signed_cell(found)}" if found.mean > 0 else signed_cell(found)


def _mean_cell(found: Estimate) -> str:
    return f"{number(found.mean, 3)}\n{interval(found, 3)}"


def _iou_row(method: Method, found: Scores) -> list[str]:
    five = estimate(found.mean_of_five, found.people)
    parts = [number(_mean(values), 3) for values in found.iou.T]
    weighted = number(_mean(found.frequency_weighted), 3)
    return [method_name(*method), *parts, number(five.mean, 3), interval(five, 3), weighted, str(_faces(found))]


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


def _faces(found: Scores) -> int:
    return int((~np.isnan(found.mean_of_five)).sum())


def _strong(methods: list[Method]) -> frozenset[int]:
    return frozenset(i for i, method in enumerate(methods) if method == (OURS, FITTED))

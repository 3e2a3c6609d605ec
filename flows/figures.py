"""The report's figures, drawn once by the evaluate stage and kept as rows of the ``pictures`` table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from editing import ControllerMap, FaceEditor, MeasurementLandmarks, part_colours

from .comparison.method_rows import LabelImages, Method
from .contracts import PARTS
from .face_editor import editor_of
from .face_file import state_of
from .methods import ESTIMATED, FINE_TUNED, GLOBAL_3DMM, MEAN_FACE, OURS, method_name
from .pictures import Rgb, Studio, difference, heat_colours, jpeg_bytes, montage, overlay, png_bytes
from .run_model import PartFaceModel

EDIT_SIGMA = 3.0
COLUMNS = 4
"""Faces side by side in a picture, so that it can be read on a narrow page."""
COLOUR_NAMES = {
    "eyebrows": "blue",
    "eyes": "sky blue",
    "nose": "orange",
    "upper_lip": "vermilion",
    "lower_lip": "reddish purple",
}
PART_LEGEND = ", ".join(f"{part.replace('_', ' ')} {COLOUR_NAMES[part]}" for part in PARTS)
SHOWN_EDITS = (
    ("eyebrows", "curve_strength"),
    ("eyes", "eye_height"),
    ("nose", "width"),
    ("upper_lip", "height"),
    ("lower_lip", "width"),
    ("rest", "mandibular_width"),
)


@dataclass(frozen=True)
class Picture:
    """One figure: the section it belongs to, what it shows in words, and PNG or JPEG bytes."""

    section: str
    caption: str
    image: bytes


@dataclass(frozen=True)
class Example:
    """A validation face with its crop (224, 224, 3), its mask (224, 224), and the parts that each method drew."""

    face_id: str
    crop: Rgb
    mask: LabelImages
    drawn: Mapping[Method, LabelImages]


def compared(methods: Sequence[Method]) -> list[Method]:
    """What NEO-3DF's figure 3 shows: of every rival the last step, of NEO-3DF fine-tuned and fitted."""
    last = dict(methods)
    shown = [method for method in methods if method[0] != MEAN_FACE and last[method[0]] == method[1]]
    before = [method for method in methods if method in ((OURS, FINE_TUNED), (GLOBAL_3DMM, ESTIMATED))]
    return [method for method in methods if method in shown or method in before]


def overlays(example: Example) -> Picture:
    """One face as in NEO-3DF's figure 3: the parts of each method over the photograph, and below where it errs."""
    methods = compared(list(example.drawn))
    upper, lower, titles = [example.crop], [overlay(example.crop, example.mask)], ["photo, and its mask below"]
    for method in methods:
        upper.append(overlay(example.crop, example.drawn[method]))
        lower.append(difference(example.drawn[method], example.mask))
        titles.append(method_name(*method))
    parts = [slice(first, first + COLUMNS) for first in range(0, len(titles), COLUMNS)]
    blocks = [montage([upper[part], lower[part]], titles[part]) for part in parts]
    caption = (
        f"Face {example.face_id}. Above, the parts of each method over the photograph: {PART_LEGEND}. Below, grey "
        "where they are as in the mask, vermilion where they are not."
    )
    return Picture("overlays", caption, jpeg_bytes(stacked(blocks)))


def stacked(sheets: Sequence[Rgb], gap: int = 10) -> Rgb:
    """Pictures of any width, one below the other on white."""
    width = max(sheet.shape[1] for sheet in sheets)
    rows = [np.pad(s, ((0, gap), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(rows)[:-gap]


class Gallery:
    """Draws what the report shows of one run."""

    def __init__(self, model: PartFaceModel, controllers: ControllerMap, points: MeasurementLandmarks) -> None:
        self.model = model
        self.controllers = controllers
        self.points = points
        self.studio = Studio(model.face_model.faces)
        self.labels = model.segments.layout.labels

    def draw(self, examples: Sequence[Example], fitted: NDArray[np.float32]) -> list[Picture]:
        """All pictures of a run; ``fitted`` (V, 3) is the shape of the first example after mask fitting."""
        return [
            self._headline(examples[0], fitted),
            *(overlays(example) for example in examples),
            self._labels(),
            *self._edits(),
        ]

    def _headline(self, example: Example, fitted: NDArray[np.float32]) -> Picture:
        after = list(example.drawn.values())[-1]
        edited = self._editor(fitted).build({"nose.width": EDIT_SIGMA})
        row = [
            example.crop,
            overlay(example.crop, example.mask),
            overlay(example.crop, after),
            self.studio.draw(fitted),
            self.studio.draw(fitted, yaw=-30),
            self.studio.draw(edited, yaw=-30),
        ]
        titles = ("photo", "its mask", "fitted parts", "fitted face", "turned 30°", "nose width +3σ")
        return Picture(
            "headline",
            "One validation face: from photograph and mask to a face that can be edited.",
            jpeg_bytes(montage([row], titles)),
        )

    def _labels(self) -> Picture:
        mean, colours = self.model.face_model.mean, part_colours(self.labels) / 255
        row = [self.studio.draw(mean), *(self.studio.draw(mean, colours, yaw) for yaw in (0, -30, -60))]
        return Picture(
            "labels",
            f"Voted part labels on the mean face: {PART_LEGEND}.",
            png_bytes(montage([row], ("mean face", "labels", "30°", "60°"))),
        )

    def _edits(self) -> list[Picture]:
        editor = self._editor(self.model.face_model.mean)
        start = editor.vertices()
        rows, names = [], []
        for region, control in SHOWN_EDITS:
            low, high = (editor.build({f"{region}.{control}": s}) for s in (-EDIT_SIGMA, EDIT_SIGMA))
            moved = np.linalg.norm(high - start, axis=1)
            heat = self.studio.draw(start, heat_colours(moved, moved.max()))
            rows.append(
                [
                    self.studio.draw(low),
                    self.studio.draw(start),
                    self.studio.draw(high),
                    self.studio.draw(high, yaw=-30),
                    heat,
                ]
            )
            names.append(f"{region.replace('_', ' ')}:\n{control.replace('_', ' ')}\n(most {moved.max():.1f} mm)")
        titles = ("−3σ", "mean face", "+3σ", "+3σ turned", "moved by +3σ")
        caption = (
            "One control of each region at −3, 0 and +3 sigma, seams blended; on the right how far each vertex moved, "
            "light 0 mm, dark the largest motion, given at the left."
        )
        return [Picture("edits", caption, png_bytes(montage(rows, titles, row_titles=names)))]

    def _editor(self, neutral: NDArray[np.float32]) -> FaceEditor:
        """An editor of a neutral shape (V, 3), taken apart into latents and offsets."""
        with torch.no_grad():
            face = self.model.encode(torch.from_numpy(neutral)[None])
        return editor_of(self.model, state_of(face), self.controllers, self.points)

"""The report's figures, drawn once by the evaluate stage and kept as rows of the ``pictures`` table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from editing import ControllerMap, FaceEditor, MeasurementLandmarks, part_colours

from .contracts import PARTS
from .face_editor import editor_of
from .face_file import state_of
from .pictures import Rgb, Studio, difference, heat_colours, jpeg_bytes, montage, overlay, png_bytes
from .run_data import RunFaces
from .run_model import PartFaceModel

EDIT_SIGMA = 3.0
COLOUR_NAMES = {
    "eyebrows": "blue",
    "eyes": "sky blue",
    "nose": "orange",
    "upper_lip": "vermilion",
    "lower_lip": "reddish purple",
}
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


class Gallery:
    """Draws what the report shows of one run."""

    def __init__(self, model: PartFaceModel, controllers: ControllerMap, points: MeasurementLandmarks) -> None:
        self.model = model
        self.controllers = controllers
        self.points = points
        self.studio = Studio(model.face_model.faces)
        self.labels = model.segments.layout.labels

    def draw(
        self,
        faces: RunFaces,
        masks: NDArray[np.uint8],
        rendered: Mapping[str, NDArray[np.uint8]],
        fitted: NDArray[np.float32],
        n_examples: int,
    ) -> list[Picture]:
        """All pictures of a run, for ``n_examples`` evenly chosen validation faces."""
        chosen = np.unique(np.linspace(0, len(faces) - 1, max(n_examples, 1)).round().astype(int))
        crops = faces.where(np.isin(np.arange(len(faces)), chosen)).crops()
        return [
            self._headline(
                crops[0], masks[chosen[0]], {m: r[chosen[0]] for m, r in rendered.items()}, fitted[chosen[0]]
            ),
            self._overlays(crops, masks[chosen], {m: r[chosen] for m, r in rendered.items()}),
            self._labels(),
            *self._edits(),
        ]

    def _headline(
        self, crop: Rgb, mask: NDArray[np.uint8], rendered: Mapping[str, NDArray[np.uint8]], fitted: NDArray[np.float32]
    ) -> Picture:
        after = list(rendered.values())[-1]
        edited = self._editor(fitted).build({"nose.width": EDIT_SIGMA})
        row = [
            crop,
            overlay(crop, mask),
            overlay(crop, after),
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

    def _overlays(
        self, crops: NDArray[np.uint8], masks: NDArray[np.uint8], rendered: Mapping[str, NDArray[np.uint8]]
    ) -> Picture:
        methods = list(rendered)
        rows = []
        for i, crop in enumerate(crops):
            row = [crop, overlay(crop, masks[i])]
            row += [overlay(crop, rendered[m][i]) for m in methods]
            row += [difference(rendered[methods[1]][i], masks[i]), difference(rendered[methods[-1]][i], masks[i])]
            rows.append(row)
        short = [m.split(" (")[0] for m in methods]
        titles = ["photo", "mask", *short, "wrong before", "wrong after"]
        caption = (
            "Parts of each method over the photograph; on the right, pixels that differ from the mask (vermilion) "
            "after the landmark fit and after mask fitting."
        )
        return Picture("overlays", caption, jpeg_bytes(montage(rows, titles)))

    def _labels(self) -> Picture:
        mean, colours = self.model.face_model.mean, part_colours(self.labels) / 255
        row = [self.studio.draw(mean), *(self.studio.draw(mean, colours, yaw) for yaw in (0, -30, -60))]
        legend = ", ".join(f"{part.replace('_', ' ')} {COLOUR_NAMES[part]}" for part in PARTS)
        return Picture(
            "labels",
            f"Voted part labels on the mean face: {legend}.",
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

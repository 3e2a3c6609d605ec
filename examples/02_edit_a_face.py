"""Edit a face by named controls and write it for Blender, Unity or Unreal.

The built-in face model with its true part labels, part models at their PCA start, controllers fitted on decoded faces.
Usage: python examples/02_edit_a_face.py [face.glb]
"""

import sys
from pathlib import Path

import numpy as np
import torch

from dataset_builder import load_face_model
from editing import (
    PARTS,
    ControllerMap,
    FaceEditor,
    FaceState,
    MeasurementLandmarks,
    control_morphs,
    export_glb,
    measure,
)
from segmodel import LinearShapes, PartLayout, VaeSettings, train_offset_regressor, train_segment_vaes

model = load_face_model("synthetic-3k")
layout = PartLayout.from_labels(model.labels, model.faces, model.mean)
shapes = LinearShapes(model.mean, model.id_basis, model.sample(1000, seed=0))
segments, _ = train_segment_vaes(layout, shapes, VaeSettings(epochs=0))
train_offset_regressor(segments, shapes)


class Decoder:
    """The part models as ``editing.FaceDecoder`` wants them: in steps, so that an edit repeats only its own."""

    def __init__(self) -> None:
        self.latent_mean = {region: mean.numpy() for region, mean in segments.latent_mean.items()}
        self.latent_std = {region: std.numpy() for region, std in segments.latent_std.items()}

    @torch.no_grad()
    def decode(self, region: str, latent: np.ndarray) -> np.ndarray:
        """Vertices (n, 3) of one region."""
        return segments.decode_part(region, torch.tensor(latent, dtype=torch.float32)[None])[0].numpy()

    @torch.no_grad()
    def place(self, rest_latent: np.ndarray) -> np.ndarray:
        """Box centres (5, 2) of the parts."""
        return segments.offsets(torch.tensor(rest_latent, dtype=torch.float32)[None])[0].numpy()

    @torch.no_grad()
    def assemble(self, shapes: dict, centres: np.ndarray) -> np.ndarray:
        """The parts put into the rest, with natural seams, (V, 3)."""
        composed = np.empty(model.mean.shape, np.float32)
        composed[layout.vertices("rest")] = shapes["rest"]
        for part, (y, z) in zip(PARTS, centres, strict=True):
            composed[layout.vertices(part)] = shapes[part] + np.array([0, y, z], np.float32)
        rest = composed.copy()
        rest[layout.vertices("rest")] = shapes["rest"]
        return segments.blender(torch.from_numpy(composed), torch.from_numpy(rest)).numpy()


points = MeasurementLandmarks.from_template(model.mean, model.labels, model.landmarks68)
with torch.no_grad():
    latents = segments.encode(shapes.vertices(np.arange(400)))
    measured = measure(segments.compose(latents)[0].numpy(), points)
controllers = ControllerMap.fit(measured, {region: z.numpy() for region, z in latents.items()}, ridge=0.03)

face, other = (FaceState.create({region: z[row].numpy() for region, z in latents.items()}) for row in (7, 8))
editor = FaceEditor(face, Decoder(), controllers, points)
print(f"nose width {editor.measurements()['nose.width']:.1f} mm")
editor.set("nose.width", 1.5)
editor.set("eyes.eye_height", 1.0)
print(f"nose width {editor.measurements()['nose.width']:.1f} mm after +1.5 sigma")
editor.set_exact("nose.width", 34.0)
print(f"nose width {editor.measurements()['nose.width']:.1f} mm when 34 mm was asked")
editor.copy_part(other, "upper_lip")
print(f"nose width {editor.measurements()['nose.width']:.1f} mm still, with another face's upper lip")

target = Path(sys.argv[1] if len(sys.argv) > 1 else "face.glb")
morphs = control_morphs(editor)
export_glb(target, editor.vertices(), model.faces, labels=model.labels, morph_targets=morphs.deltas)
print(f"{target}: {len(morphs.deltas)} named morph targets, {target.stat().st_size / 1e6:.1f} MB")

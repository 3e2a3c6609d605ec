"""Edit a face by named controls and write it for Blender, Unity or Unreal.

The built-in face model with its true part labels, part models at their PCA start, controllers fitted on decoded faces.
Usage: python examples/02_edit_a_face.py [face.glb]
"""

import sys
from pathlib import Path

import numpy as np
import torch

from dataset_builder import load_face_model
from editing import ControllerMap, FaceEditor, FaceState, MeasurementLandmarks, control_morphs, export_glb, measure
from segmodel import LinearShapes, PartLayout, VaeSettings, train_offset_regressor, train_segment_vaes

model = load_face_model("synthetic-3k")
layout = PartLayout.from_labels(model.labels, model.faces, model.mean)
shapes = LinearShapes(model.mean, model.id_basis, model.sample(1000, seed=0))
segments, _ = train_segment_vaes(layout, shapes, VaeSettings(epochs=0))
train_offset_regressor(segments, shapes)


@torch.no_grad()
def decode(latents: dict, offsets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Composed parts and rest, (V, 3) each, of one face."""
    z = {region: torch.tensor(values, dtype=torch.float32)[None] for region, values in latents.items()}
    composed, rest = segments.compose(z, None if offsets is None else torch.tensor(offsets, dtype=torch.float32)[None])
    return composed[0].numpy(), rest[0].numpy()


@torch.no_grad()
def blend(composed: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The face with natural seams."""
    return segments.blender(torch.from_numpy(composed)[None], torch.from_numpy(rest)[None])[0].numpy()


points = MeasurementLandmarks.from_template(model.mean, model.labels, model.landmarks68)
with torch.no_grad():
    latents = segments.encode(shapes.vertices(np.arange(400)))
    measured = measure(segments.compose(latents)[0].numpy(), points)
controllers = ControllerMap.fit(measured, {region: z.numpy() for region, z in latents.items()}, ridge=0.03)

editor = FaceEditor(FaceState.create({r: z[7].numpy() for r, z in latents.items()}), decode, blend, controllers, points)
print(f"nose width {editor.measurements()['nose.width']:.1f} mm")
editor.set("nose.width", 1.5)
editor.set("eyes.eye_height", 1.0)
print(f"nose width {editor.measurements()['nose.width']:.1f} mm after +1.5 sigma")
editor.set_exact("nose.width", 34.0)
print(f"nose width {editor.measurements()['nose.width']:.1f} mm when 34 mm was asked")

target = Path(sys.argv[1] if len(sys.argv) > 1 else "face.glb")
morphs = control_morphs(editor)
export_glb(target, editor.vertices(), model.faces, labels=model.labels, morph_targets=morphs.deltas)
print(f"{target}: {len(morphs.deltas)} named morph targets, {target.stat().st_size / 1e6:.1f} MB")

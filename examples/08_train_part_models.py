"""Train a tiny part model: six VAEs, the offsets of the parts, and seams that close when one part is exchanged.

On random faces of the built-in face model, from random weights as in the paper, then from PCA, where a few epochs do.
"""

import numpy as np
import torch

from dataset_builder import load_face_model
from segmodel import LinearShapes, PartLayout, VaeSettings, seam_report, train_offset_regressor, train_segment_vaes

face = load_face_model("synthetic-3k")
layout = PartLayout.from_labels(face.labels, face.faces, face.mean)
shapes = LinearShapes(face.mean, face.id_basis, face.sample(1000, seed=0))

for settings in (VaeSettings(init="random", epochs=10), VaeSettings(epochs=2)):
    segments, report = train_segment_vaes(layout, shapes, settings)
    ratios = ", ".join(f"{region} {quality.ratio:.2f}" for region, quality in report.regions.items())
    print(f"from {report.init}: held-out error over that of PCA: {ratios}")
train_offset_regressor(segments, shapes)

# Everyone gets the nose of the next one.
with torch.no_grad():
    vertices = shapes.vertices(np.arange(16))
    latents = segments.encode(vertices)
    latents["nose"] = latents["nose"].roll(1, dims=0)
    composed, rest = segments.compose(latents)
    blended = segments.blender(composed, rest)
seams = seam_report(layout, segments.blender.area, composed, blended, rest, vertices).summary()
for what, unit in (("stretch_mm", "mm of stretch"), ("crease_deg", "degrees of crease")):
    print(
        f"seams of other people's noses: {seams[f'{what}_mean_before']:.2f} -> {seams[f'{what}_mean_after']:.2f} {unit}"
    )
print(f"moved inside the parts by blending: {seams['moved_in_parts_mm']:.1f} mm")

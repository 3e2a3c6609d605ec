"""How much of each part a camera sees: which parts of a turned or cropped face a mask can be judged by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fitting.camera import Camera, project
from fitting.part_images import PartRenderer
from fitting.parts import LABEL_IDS, PARTS
from fitting.renderer import BackendName


def _margin(vertices: Tensor, camera: Camera) -> tuple[int, int]:
    """Columns and rows that the face reaches beyond the image, at most one image size to each side."""
    pixels, _ = project(vertices, camera)
    size = pixels.new_tensor([camera.width, camera.height])
    beyond = torch.maximum(-pixels, pixels - size).flatten(0, -2).amax(0).clamp_min(0)
    columns, rows = torch.minimum(beyond, size).ceil().long().tolist()
    return columns, rows


@torch.no_grad()
def visible_parts(
    vertices: Tensor,
    labels: ArrayLike | Tensor,
    camera: Camera,
    faces: ArrayLike | Tensor,
    *,
    backend: BackendName = "auto",
) -> Tensor:
    """Share of each part that is seen: its pixels in the image over the pixels it would cover alone.

    Alone means without the rest of the face and in an image large enough to hold it, so what other parts or the
    cheek hide, what faces away, and what lies outside of the image all count as unseen. What a part hides of
    itself does not. A frontal part has 1; of the far brow of a face in profile hardly anything is seen.

    Args:
        vertices: (B, V, 3) mm, camera frame.
        labels: (V,) label ids 1 to 6.
        camera: the camera; its size is the image size.
        faces: (F, 3) integer.
        backend: as for `Renderer`.

    Returns:
        (B, 5) float32 in [0, 1], order of PARTS; 0 for a part that the mesh does not have or that lies more
        than one image size outside.

    Raises:
        ValueError: as `PartRenderer`, or a vertex is not finite or not in front of the camera.
    """
    ids, table = np.asarray(labels), np.asarray(faces)
    whole = PartRenderer(table, ids, camera, backend=backend).labels(vertices)
    columns, rows = _margin(vertices, camera)
    wide = replace(
        camera,
        width=camera.width + 2 * columns,
        height=camera.height + 2 * rows,
        cx=camera.cx + columns,
        cy=camera.cy + rows,
    )
    shares = []
    for part in PARTS:
        label = LABEL_IDS[part]
        alone = PartRenderer(table[(ids[table] == label).any(1)], ids, wide, backend=backend).labels(vertices)
        seen, covered = ((image == label).sum((1, 2)) for image in (whole, alone))
        shares.append(seen / covered.clamp_min(1))
    return torch.stack(shares, 1).float().clamp_max(1)

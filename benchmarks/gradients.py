"""How right are the named gradients of a part image? Analytic over finite-difference slope; 1.00 is correct.

python benchmarks/gradients.py [--model synthetic-35k] [--size 224] [--finer 4] [--starts 4]

The loss is the region loss against the mask of the same face shifted by 3, 2 px. The reference is its central
difference (half a pixel to each side) over an image `finer` times as fine: of hard labels for the label-edge
force, of interpolated colours for the other gradients. Both slopes are summed over starts that differ by
fractions of a pixel. A row moves something along x or y of the image: the whole face, a part with a soft surround
(all of it up to 5 mm around the part, nothing from 15 mm on, as blending does), or the vertices of a part alone,
which stretches the triangles around it ("torn"). "x2" is 2x supersampling.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from dataset_builder import load_face_model
from fitting import (
    LABEL_IDS,
    PARTS,
    Camera,
    LabelCosts,
    PartRenderer,
    apply_pose,
    mask_targets,
    render_labels,
)

NAMES = ("interpolation", "antialias", "edge", "label-edge", "label-edge-shared")
GRADIENTS = [(name, factor) for factor in (1, 2) for name in NAMES]
REFERENCES = {"antialias": "interpolation", "edge": "interpolation", "label-edge-shared": "label-edge"}

Moves = dict[tuple[str, str], Tensor]
Slopes = dict[tuple[str, str], float]


def directions(vertices: np.ndarray, labels: np.ndarray) -> Moves:
    """{(what moves, axis): (V, 3) motion in mm}."""
    shares = {"face": np.ones(len(labels))}
    shares |= {f"{part}, torn": labels == LABEL_IDS[part] for part in ("nose", "eyes")}
    for part in PARTS:
        distance, _ = cKDTree(vertices[labels == LABEL_IDS[part]]).query(vertices)
        shares[part] = np.clip((15 - distance) / 10, 0, 1)
    return {
        (name, axis): torch.from_numpy(np.asarray(share, np.float32))[:, None] * torch.eye(3)[column]
        for name, share in shares.items()
        for column, axis in enumerate(("tx", "ty"))
    }


def shifted(vertices: Tensor, x: float, y: float) -> Tensor:
    return vertices + torch.tensor([x, y, 0.0])


def region_losses(renderer: PartRenderer, mask: Tensor) -> Callable[[Tensor], Tensor]:
    """Vertices (1, V, 3) -> region loss against the mask, repeated if the renderer's image is finer."""
    finer = renderer.camera.height // mask.shape[1]
    targets = mask_targets(mask.repeat_interleave(finer, 1).repeat_interleave(finer, 2), 0.0)
    costs = LabelCosts.from_targets(targets)
    return lambda vertices: renderer.region_loss(vertices, targets, costs)


def analytic_slopes(renderer: PartRenderer, mask: Tensor, starts: list[Tensor], moves: Moves) -> Slopes:
    loss, slopes = region_losses(renderer, mask), dict.fromkeys(moves, 0.0)
    for start in starts:
        moving = start.clone().requires_grad_()
        loss(moving).backward()
        for key, motion in moves.items():
            slopes[key] += float((moving.grad[0] * motion).sum())
    return slopes


@torch.no_grad()
def numeric_slopes(renderer: PartRenderer, mask: Tensor, starts: list[Tensor], moves: Moves, step: float) -> Slopes:
    loss, slopes = region_losses(renderer, mask), dict.fromkeys(moves, 0.0)
    for start in starts:
        for key, motion in moves.items():
            slopes[key] += float(loss(start + step * motion) - loss(start - step * motion)) / (2 * step)
    return slopes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic-35k")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--finer", type=int, default=4)
    parser.add_argument("--starts", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_face_model(options.model)
    labels, camera = torch.from_numpy(model.labels), Camera.deep3d(options.size)
    mm_per_px = camera.distance / camera.fx
    moves = directions(model.mean, model.labels)

    def renderer(gradient: str, supersample: int = 1, finer: int = 1) -> PartRenderer:
        view = camera.resized(finer)
        return PartRenderer(model.faces, labels, view, gradient=gradient, backend="cpu", supersample=supersample)

    names = [name + (" x2" if factor == 2 else "") for name, factor in GRADIENTS]
    print(f"{options.model}: {len(labels)} vertices, {options.size} px, {options.starts} starts")
    print(f"{'yaw':>4} {'moved':14s} {'':2s} " + " ".join(f"{name:>20s}" for name in names))
    for yaw in (0, 35, 60):
        pose = torch.tensor([[0.0, math.radians(yaw), 0.0]])
        face = apply_pose(torch.from_numpy(model.mean)[None], pose, torch.zeros(1, 3))
        mask = render_labels(shifted(face, 3 * mm_per_px, -2 * mm_per_px), labels, camera, model.faces, backend="cpu")
        starts = [
            shifted(face, mm_per_px * (i / options.starts), mm_per_px * ((0.5 + i * 0.618) % 1))
            for i in range(options.starts)
        ]
        analytic = {key: analytic_slopes(renderer(*key), mask, starts, moves) for key in GRADIENTS}
        numeric = {
            name: numeric_slopes(renderer(name, finer=options.finer), mask, starts, moves, mm_per_px / 2)
            for name in ("interpolation", "label-edge")
        }
        for key in moves:
            ratios = [analytic[g][key] / numeric[REFERENCES.get(g[0], g[0])][key] for g in GRADIENTS]
            print(f"{yaw:4d} {key[0]:14s} {key[1]:2s} " + " ".join(f"{ratio:20.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()

"""The three deformations that `arap.py` measures: a closed surface, the skin between face parts, and the whole face.

python benchmarks/arap_meshes.py FOLDER writes each as FOLDER/<name>.npz. On the faces the border of the nose moves by
5 mm and the other borders stay; on the closed surface one cap moves and the other stays.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

MOVE = np.array([0.0, 3.0, 4.0])
SKIN_MM = 12.1  # of skin around nose and lips: gives the size of the paper's area, 7,595 vertices with 1,281 handles


@dataclass(frozen=True)
class Deformation:
    """A mesh at rest (V, 3), its triangles (F, 3), the held vertices (K,) and where they go (K, 3)."""

    rest: Floats
    faces: Ids
    handles: Ids
    targets: Floats

    @property
    def n_free(self) -> int:
        return len(self.rest) - len(self.handles)

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Deformation":
        with np.load(path) as arrays:
            return cls(**arrays)


def bumpy_sphere(n: int = 2562) -> Deformation:
    """Closed surface of about 100 mm: n points evenly on a sphere, with bumps."""
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    unit = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
    rest = unit * (50 + 4 * np.sin(5 * unit[:, :1]) * np.cos(4 * unit[:, 1:2]) + 2 * np.cos(9 * unit[:, 2:]))
    low, high = np.flatnonzero(height < -0.95), np.flatnonzero(height > 0.95)
    handles = np.concatenate([low, high])
    moved = np.isin(handles, high)[:, None] * MOVE
    return Deformation(rest, ConvexHull(unit).simplices.astype(np.int64), handles, rest[handles] + moved)


def faces_of_the_synthetic_model() -> tuple[Deformation, Deformation]:
    """The skin around nose and lips, and the whole face with the same vertices held.

    The area is the one that `segmodel.SeamBlender` deforms, cut off `SKIN_MM` around nose and lips.
    """
    from dataset_builder import load_face_model
    from segmodel import PartLayout

    model = load_face_model("synthetic-35k")
    layout = PartLayout.from_labels(model.labels, model.faces, model.mean)
    rest = model.mean.astype(np.float64)
    area = layout.transition(radius_mm=30)
    borders = np.concatenate([layout.ring(part) for part in ("nose", "upper_lip", "lower_lip")])
    near = cKDTree(rest[borders]).query(rest)[0] < SKIN_MM

    triangles = area.vertex_ids[area.faces]
    triangles = triangles[near[triangles].all(axis=1)]
    ids = np.unique(triangles)
    edges, uses = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)), axis=0, return_counts=True)
    held = np.union1d(edges[uses == 1], np.intersect1d(ids, area.vertex_ids[area.handles]))
    targets = rest[held] + np.isin(held, layout.ring("nose"))[:, None] * MOVE

    skin = Deformation(rest[ids], np.searchsorted(ids, triangles), np.searchsorted(ids, held), targets)
    return skin, Deformation(rest, model.faces, held, targets)


def main(folder: Path) -> None:
    skin, face = faces_of_the_synthetic_model()
    for name, deformation in (("sphere", bumpy_sphere()), ("transition", skin), ("face", face)):
        deformation.save(folder / f"{name}.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

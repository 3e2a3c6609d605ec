"""A small labelled face-like dome and the slow float64 twin of the renderer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting import LABEL_IDS, PARTS, Camera


@dataclass(frozen=True)
class Face:
    vertices: Tensor
    """(V, 3) float32 mm, camera frame."""
    faces: Tensor
    labels: Tensor
    camera: Camera

    def reach(self, part: str) -> Tensor:
        """(V, 1) share of a part's motion: 1 up to 5 mm around the part, then falling to 0 over 10 mm."""
        distance = torch.cdist(self.vertices, self.vertices[self.labels == LABEL_IDS[part]]).min(1).values
        return ((15 - distance) / 10).clamp(0, 1)[:, None]

    def shape(self, values: dict[str, Tensor]) -> Tensor:
        """{part: (B, 2)} offsets of the parts along x and y in mm -> (B, V, 3)."""
        batch = len(next(iter(values.values())))
        result = self.vertices.expand(batch, -1, -1)
        for name, value in values.items():
            offset = torch.cat([value, torch.zeros(batch, 1)], 1)
            result = result + self.reach(name) * offset[:, None]
        return result


ELLIPSES = {  # centre x, y and radii in mm
    "eyebrows": [(-30.0, 45.0, 18.0, 5.0), (30.0, 45.0, 18.0, 5.0)],
    "eyes": [(-30.0, 27.0, 13.0, 5.5), (30.0, 27.0, 13.0, 5.5)],
    "nose": [(0.0, 8.0, 14.0, 21.0)],
    "upper_lip": [(0.0, -30.0, 22.0, 5.5)],
    "lower_lip": [(0.0, -44.0, 19.0, 6.0)],
}


@pytest.fixture(scope="session")
def face() -> Face:
    """45 x 49 grid on a dome of 160 x 190 mm: 2,205 vertices, 4,224 triangles, seen at 96 px."""
    x, y = np.meshgrid(np.linspace(-80, 80, 45), np.linspace(-95, 95, 49))
    z = 60 * (1 - 0.6 * ((x / 80) ** 2 + (y / 95) ** 2))
    vertices = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    grid = np.arange(len(vertices)).reshape(x.shape)
    a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, :-1].ravel(), grid[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    labels = np.full(len(vertices), LABEL_IDS["rest"])
    for part in PARTS:
        for centre_x, centre_y, radius_x, radius_y in ELLIPSES[part]:
            inside = ((vertices[:, 0] - centre_x) / radius_x) ** 2 + ((vertices[:, 1] - centre_y) / radius_y) ** 2 < 1
            labels[inside] = LABEL_IDS[part]
    return Face(torch.from_numpy(vertices), torch.from_numpy(faces), torch.from_numpy(labels), Camera.deep3d(96))


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    """The slow float64 twin of the renderer, `twin.py` beside this file."""
    spec = importlib.util.spec_from_file_location("rendering_twin", Path(__file__).with_name("twin.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

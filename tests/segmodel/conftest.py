"""A small labelled linear face: a height field over an ellipse with a mouth slit, and smooth random modes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from segmodel import LABEL_IDS, PARTS, LinearShapes, OffsetSettings, PartLayout, VaeSettings, train_offset_regressor
from segmodel import train_segment_vaes as train

SPACING = 3.0
N_FACES = 1200
MOUTH_Y = -36.0
SPLAT_SIZE = 32


@dataclass(frozen=True)
class Face:
    mean: np.ndarray
    basis: np.ndarray
    faces: np.ndarray
    labels: np.ndarray
    lower_slit: np.ndarray

    def sample(self, n: int, seed: int) -> LinearShapes:
        coefficients = np.random.default_rng(seed).standard_normal((n, self.basis.shape[2]))
        return LinearShapes(self.mean, self.basis, coefficients.astype(np.float32))


def grid_with_slit() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (n, 2) and faces of a triangulated ellipse whose row at MOUTH_Y, |x| < 20, is split into two lips."""
    columns, rows = np.arange(-60, 61, SPACING), np.arange(-81, 82, SPACING)
    x, y = np.meshgrid(columns, rows)
    inside = (x / 61) ** 2 + (y / 82) ** 2 < 1
    number = np.where(inside, np.cumsum(inside).reshape(inside.shape) - 1, -1)
    points = np.stack([x[inside], y[inside]], axis=1)
    slit = (np.abs(points[:, 0]) < 20) & (points[:, 1] == MOUTH_Y)
    below = np.arange(len(points))
    below[slit] = len(points) + np.arange(slit.sum())
    faces = []
    for r in range(len(rows) - 1):
        for c in range(len(columns) - 1):
            quad = np.array([number[r, c], number[r, c + 1], number[r + 1, c + 1], number[r + 1, c]])
            if (quad < 0).any():
                continue
            if rows[r] < MOUTH_Y:
                quad = below[quad]
            faces += [quad[[0, 1, 2]], quad[[0, 2, 3]]]
    faces = np.array(faces)
    points = np.concatenate([points, points[slit]])
    used, faces = np.unique(faces, return_inverse=True)
    is_lower = np.isin(used, below[slit])
    return points[used], faces.reshape(-1, 3).astype(np.int64), is_lower


def label_points(points: np.ndarray, is_lower: np.ndarray) -> np.ndarray:
    x, y = np.abs(points[:, 0]), points[:, 1]
    labels = np.full(len(points), LABEL_IDS["rest"])
    labels[((x - 26) / 15) ** 2 + ((y - 44) / 5) ** 2 < 1] = LABEL_IDS["eyebrows"]
    labels[((x - 28) / 12) ** 2 + ((y - 27) / 6) ** 2 < 1] = LABEL_IDS["eyes"]
    labels[(x / 12) ** 2 + ((y - 5) / 21) ** 2 < 1] = LABEL_IDS["nose"]
    lips = (x / 23) ** 2 + ((y - MOUTH_Y) / 9) ** 2 < 1
    labels[lips & (y >= MOUTH_Y)] = LABEL_IDS["upper_lip"]
    labels[lips & ((y < MOUTH_Y) | is_lower)] = LABEL_IDS["lower_lip"]
    return labels


def smooth_modes(points: np.ndarray, n_modes: int) -> np.ndarray:
    """Modes (V, 3, n): sums of broad and narrow Gaussian bumps, amplitudes falling from 3 to 0.3 mm."""
    rng = np.random.default_rng(7)
    modes = np.zeros((len(points), 3, n_modes))
    for k in range(n_modes):
        centres = rng.uniform([-55, -75], [55, 75], (12, 2))
        widths = rng.uniform(12, 45, 12)
        bumps = np.exp(-((points[:, None] - centres) ** 2).sum(-1) / (2 * widths**2))
        modes[:, :, k] = bumps @ rng.standard_normal((12, 3))
        modes[:, :, k] *= 3.0 * 0.1 ** (k / (n_modes - 1)) / np.sqrt((modes[:, :, k] ** 2).sum(1).mean())
    return modes


@pytest.fixture(scope="session")
def face() -> Face:
    points, faces, is_lower = grid_with_slit()
    x, y = points.T
    nose = 16 * np.exp(-((x / 9) ** 2) - ((y - 2) / 16) ** 2)
    mean = np.stack([x, y, 40 - 50 * (x / 75) ** 2 - 40 * (y / 100) ** 2 + nose], axis=1)
    return Face(
        mean=mean.astype(np.float32),
        basis=smooth_modes(points, 30).astype(np.float32),
        faces=faces,
        labels=label_points(points, is_lower),
        lower_slit=np.flatnonzero(is_lower),
    )


@pytest.fixture(scope="session")
def layout(face):
    return PartLayout.from_labels(face.labels, face.faces, face.mean)


@pytest.fixture(scope="session")
def shapes(face):
    return face.sample(N_FACES, seed=1)


SETTINGS = VaeSettings(rest_dim=12, part_dim=6, epochs=3, lambda_kl=0.1, seed=3)


@pytest.fixture(scope="session")
def trained(layout, shapes):
    """(model, VAE report, offset report); tests must not change the model."""
    model, report = train(layout, shapes, SETTINGS)
    offsets = train_offset_regressor(model, shapes, OffsetSettings(epochs=3, batch=64))
    return model, report, offsets


@pytest.fixture(scope="session")
def model(trained):
    return trained[0]


class SplatParts:
    """Differentiable stand-in for a rasteriser: every part vertex is a Gaussian blob of its part's channel."""

    def __init__(self, labels):
        self.ids = [np.flatnonzero(labels == LABEL_IDS[part]) for part in PARTS]
        grid = (torch.arange(SPLAT_SIZE) + 0.5) / SPLAT_SIZE * 170 - 85
        self.rows, self.columns = -grid[:, None], grid[None, :]

    def __call__(self, vertices, rows):
        channels = []
        for ids in self.ids:
            x, y = vertices[:, ids, 0, None, None], vertices[:, ids, 1, None, None]
            blob = torch.exp(-((self.columns - x) ** 2 + (self.rows - y) ** 2) / (2 * 2.5**2))
            channels.append(1 - torch.exp(-blob.sum(dim=1)))
        return torch.stack(channels, dim=-1)


@pytest.fixture(scope="session")
def splats(layout):
    """A differentiable ``render_parts`` of 32 pixels."""
    return SplatParts(layout.labels)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)

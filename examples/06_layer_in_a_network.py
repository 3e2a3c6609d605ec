"""As-rigid-as-possible deformation as a layer: complete the surface of a bent bar from four noisy markers on it.

The network places the far end of the bar, the layer bends everything between the ends. Whatever the network says, the
result is a bar, and the loss can be on its whole surface.
"""

import numpy as np
import torch
from torch import Tensor, nn

from arap_diff import ArapSolver

ALONG, AROUND, LENGTH = 40, 12, 100.0
FIXED, FAR = np.arange(2 * AROUND), np.arange((ALONG - 2) * AROUND, ALONG * AROUND)
MARKERS = [10 * AROUND, 17 * AROUND + 3, 23 * AROUND + 6, 30 * AROUND + 9]

distance, around = np.meshgrid(np.linspace(0, LENGTH, ALONG), 2 * np.pi * np.arange(AROUND) / AROUND, indexing="ij")
ring = np.stack([8 * np.cos(around), 8 * np.sin(around)], -1)
rest = torch.tensor(np.concatenate([distance[..., None], ring], -1).reshape(-1, 3), dtype=torch.float32)
corner = np.arange((ALONG - 1) * AROUND)
beside = corner // AROUND * AROUND + (corner + 1) % AROUND
faces = np.concatenate(
    [np.stack([corner, beside, corner + AROUND], 1), np.stack([beside, beside + AROUND, corner + AROUND], 1)]
)


def bent_bars(n: int) -> Tensor:
    """(n, V, 3) bars bent to arcs of up to 100 degrees in any direction."""
    angle, direction = torch.rand(n, 1) * np.radians(100) + 1e-3, torch.rand(n, 1) * 2 * np.pi
    bent = rest[:, 0] / LENGTH * angle
    inwards = rest[:, 1] * direction.cos() + rest[:, 2] * direction.sin()
    sideways = rest[:, 2] * direction.cos() - rest[:, 1] * direction.sin()
    radius = LENGTH / angle
    out = radius - (radius - inwards) * bent.cos()
    y, z = out * direction.cos() - sideways * direction.sin(), out * direction.sin() + sideways * direction.cos()
    return torch.stack([(radius - inwards) * bent.sin(), y, z], -1)


class BarFromMarkers(nn.Module):
    """Markers (B, 4, 3) to bars (B, V, 3), by way of the far end's pose: a rotation vector and a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.solver = ArapSolver(faces, np.concatenate([FIXED, FAR]), len(rest))
        self.pose = nn.Sequential(nn.Linear(3 * len(MARKERS), 64), nn.Tanh(), nn.Linear(64, 6))
        self.register_buffer("cross", torch.linalg.cross(torch.eye(3)[:, None], torch.eye(3)[None], dim=-1))

    def forward(self, markers: Tensor) -> Tensor:
        """Bars (B, V, 3)."""
        turn, shift = self.pose((markers - rest[MARKERS]).flatten(1) / 20).split(3, dim=1)
        rotation = torch.matrix_exp(torch.einsum("bi,ijk->bjk", turn, self.cross))
        middle = rest[FAR].mean(0)
        far = (rest[FAR] - middle) @ rotation + middle + 20 * shift[:, None]
        return self.solver.solve(rest, torch.cat([rest[FIXED].expand(len(far), -1, -1), far], dim=1), n_solves=4)


def seen(bars: Tensor) -> Tensor:
    """Noisy markers (B, 4, 3) on bars (B, V, 3)."""
    return bars[:, MARKERS] + 0.5 * torch.randn(len(bars), len(MARKERS), 3)


def error(bars: Tensor) -> float:
    """Mean distance of the completed surface from the true one."""
    with torch.no_grad():
        return (model(seen(bars)) - bars).norm(dim=-1).mean().item()


torch.manual_seed(0)
model = BarFromMarkers()
optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
unseen = bent_bars(50)
print(f"surface of unseen bars, mean distance: {error(unseen):.1f} mm before training")
for _ in range(200):
    bars = bent_bars(8)
    optimiser.zero_grad()
    (model(seen(bars)) - bars).square().sum(-1).mean().backward()
    optimiser.step()
print(f"surface of unseen bars, mean distance: {error(unseen):.1f} mm after")

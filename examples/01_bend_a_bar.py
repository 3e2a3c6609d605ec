"""Bend a bar: hold one end, turn the other, and let as-rigid-as-possible deformation fill in between.

Then ask how the middle of the bar follows the free end: the gradient of its height with respect to the end's positions.
"""

import numpy as np
import torch

from arap_diff import ArapSolver, laplacian

ALONG, AROUND = 40, 12

# A tube of 40 rings of 12 vertices, 100 mm long.
angle = 2 * np.pi * np.arange(AROUND) / AROUND
x, ring = np.meshgrid(np.linspace(0, 100, ALONG), angle, indexing="ij")
rest = torch.tensor(np.stack([x, 8 * np.cos(ring), 8 * np.sin(ring)], -1).reshape(-1, 3))
corner = np.arange((ALONG - 1) * AROUND)
beside = corner // AROUND * AROUND + (corner + 1) % AROUND
faces = np.concatenate(
    [np.stack([corner, beside, corner + AROUND], 1), np.stack([beside, beside + AROUND, corner + AROUND], 1)]
)

# The first two rings stay, the last two are turned by 60 degrees about the z axis.
fixed, moved = np.arange(2 * AROUND), np.arange((ALONG - 2) * AROUND, ALONG * AROUND)
turn = np.radians(60)
rotation = torch.tensor([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
pivot = torch.tensor([50.0, 0.0, 0.0], dtype=torch.float64)
end = ((rest[moved] - pivot) @ rotation.T + pivot).requires_grad_()

solver = ArapSolver(faces, np.concatenate([fixed, moved]), len(rest))
bent = solver.solve(rest, torch.cat([rest[fixed], end]), n_solves=20)

middle = bent[ALONG // 2 * AROUND : (ALONG // 2 + 1) * AROUND, 1].mean()
middle.backward()
edges = laplacian(faces, len(rest)).tocoo()
i, j = edges.row[edges.row < edges.col], edges.col[edges.row < edges.col]
stretch = (bent[i] - bent[j]).norm(dim=1) / (rest[i] - rest[j]).norm(dim=1)
print(f"middle of the bar: {middle.item():.1f} mm up; per mm of the turned end: {end.grad[:, 1].sum().item():.2f} mm")
print(f"edges: from {stretch.min().item():.2f} to {stretch.max().item():.2f} of their length at rest")

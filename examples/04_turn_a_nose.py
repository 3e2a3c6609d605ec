"""Turn the nose of a face and let the skin around it follow, without rotations and with them.

The built-in face model with its true part labels; only the skin close to the nose is free.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree

from arap_diff import ArapSolver, laplacian
from dataset_builder import LABEL_IDS, load_face_model

model = load_face_model("synthetic")
rest = torch.tensor(model.mean, dtype=torch.float64)
nose = np.flatnonzero(model.labels == LABEL_IDS["nose"])
to_nose, _ = cKDTree(model.mean[nose]).query(model.mean)
skin = (model.labels == LABEL_IDS["rest"]) & (to_nose < 25)
held = np.setdiff1d(np.flatnonzero(~skin), nose)

# Its tip 25 degrees up and all of it 5 mm forwards.
turn = np.radians(25)
rotation = torch.tensor([[1, 0, 0], [0, np.cos(turn), np.sin(turn)], [0, -np.sin(turn), np.cos(turn)]])
middle = rest[nose].mean(0)
turned = (rest[nose] - middle) @ rotation.T + middle + torch.tensor([0.0, 0.0, 5.0])

solver = ArapSolver(model.faces, np.concatenate([nose, held]), len(rest))
targets = torch.cat([turned, rest[held]])
linear = solver.solve(rest, targets, n_solves=1)
deformed = solver.solve(rest, targets, n_solves=4)

edges = laplacian(model.faces, len(rest)).tocoo()
inside = skin[edges.row] & (edges.row < edges.col)
i, j = edges.row[inside], edges.col[inside]
for name, shape in (("without rotations", linear), ("with rotations", deformed)):
    shortest = ((shape[i] - shape[j]).norm(dim=1) / (rest[i] - rest[j]).norm(dim=1)).min()
    print(f"{name}: energy {solver.energy(shape, rest):.0f} mm2, skin edges at least {shortest:.2f} of their length")

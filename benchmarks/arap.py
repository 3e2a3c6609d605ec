"""How fast is the differentiable deformation, and against open3d and libigl in the same process?

python benchmarks/arap.py [--rows 110] [--repeats 15]; set OMP_NUM_THREADS=1 to compare one thread with one thread.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from arap_diff import ArapSolver


def face_like_grid(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Curved grid, its triangles, handles on the border and in a central patch, and the patch moved by 5 mm."""
    x, y = np.meshgrid(np.linspace(-80, 80, rows), np.linspace(-80, 80, rows))
    rest = np.stack([x, y, 60 * np.cos(x / 90) * np.cos(y / 90) + np.sin(x / 5) * np.cos(y / 7)], axis=-1).reshape(
        -1, 3
    )
    ids = np.arange(rows * rows).reshape(rows, rows)
    a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    patch = ids[2 * rows // 5 : 3 * rows // 5, 2 * rows // 5 : 3 * rows // 5].ravel()
    handles = np.unique(np.concatenate([patch, ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    targets = rest[handles] + np.isin(handles, patch)[:, None] * np.array([0.0, 3.0, 4.0])
    return rest, faces, handles, targets


@dataclass(frozen=True)
class Cost:
    """Smallest wall time and smallest processor time (all threads) of one call, ms."""

    wall: float
    cpu: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


def measure(action: Callable[[], object], repeats: int) -> Cost:
    action()
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return Cost(1e3 * min(wall), 1e3 * min(cpu))


def forward_and_backward(
    solver: ArapSolver, rest: np.ndarray, targets: np.ndarray, batch: int, n_solves: int, repeats: int
) -> tuple[Cost, Cost]:
    p = torch.from_numpy(rest).expand(batch, -1, -1).clone().requires_grad_()
    h = torch.from_numpy(targets).expand(batch, -1, -1).clone().requires_grad_()
    x = solver.solve(p, h, n_solves)
    x_bar = torch.ones_like(x)
    forward = measure(lambda: solver.solve(p, h, n_solves), repeats)
    backward = measure(lambda: torch.autograd.grad(x, (p, h), x_bar, retain_graph=True), repeats)
    return forward, backward


def open3d_cost(rest: np.ndarray, faces: np.ndarray, handles: np.ndarray, targets: np.ndarray, repeats: int) -> Cost:
    import open3d as o3d

    o3d.utility.set_verbosity_level(o3d.utility.VerbosityLevel.Error)
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(rest), o3d.utility.Vector3iVector(faces))
    ids, points = o3d.utility.IntVector(handles.astype(np.int32)), o3d.utility.Vector3dVector(targets)
    return measure(lambda: mesh.deform_as_rigid_as_possible(ids, points, max_iter=3), repeats)


def libigl_cost(rest: np.ndarray, faces: np.ndarray, handles: np.ndarray, targets: np.ndarray, repeats: int) -> Cost:
    import igl

    data = igl.ARAPData()
    data.energy = igl.ARAP_ENERGY_TYPE_SPOKES
    data.max_iter = 3
    igl.arap_precomputation(rest, faces, 3, handles, data)
    return measure(lambda: igl.arap_solve(targets, data, rest.copy()), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=110)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rest, faces, handles, targets = face_like_grid(options.rows)
    print(f"{len(rest)} vertices, {len(handles)} handles, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")

    print("\nms per call, minimum over repeats: wall (processor, all threads)")
    print(f"{'backend':8}{'energy':13}{'batch':>6}{'solves':>8}{'forward':>18}{'backward':>18}")
    for backend in ("numba", "numpy"):
        for energy in ("bilaplacian", "edges"):
            solver = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend)
            for batch in (1, 8):
                for n_solves in (1, 3):
                    costs = forward_and_backward(solver, rest, targets, batch, n_solves, options.repeats)
                    cells = "".join(f"{f'{cost.wall:.2f} ({cost.cpu:.2f})':>18}" for cost in costs)
                    print(f"{backend:8}{energy:13}{batch:6}{n_solves:8}{cells}")

    def build() -> ArapSolver:
        return ArapSolver(faces, handles, len(rest), rest=rest, energy="edges", weights="cotangent")

    once = measure(build, 3)
    solve, _ = forward_and_backward(build(), rest, targets, 1, 4, options.repeats)
    print("\nSorkine-Alexa energy, cotangent weights, 3 rotation fits (ours makes one solve more), forward only")
    print("ratio: processor time of the peer to ours for the same work; above 1 we are faster")
    for name, peer, ours in (
        ("open3d (factors in every call)", open3d_cost, once + solve),
        ("libigl arap_solve (factor given)", libigl_cost, solve),
    ):
        try:
            theirs = peer(rest, faces, handles, targets, options.repeats)
        except ImportError as error:
            print(f"{name:34}not measured: {error}")
            continue
        cells = "".join(f"{f'{cost.wall:.2f} ({cost.cpu:.2f})':>18}" for cost in (theirs, ours))
        print(f"{name:34}peer{cells[:18]}   ours{cells[18:]}   ratio {theirs.cpu / ours.cpu:.1f}")


if __name__ == "__main__":
    main()

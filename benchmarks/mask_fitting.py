"""How fast is one step of mask fitting (raster + loss + gradient), against open3d's ray caster in the same process?

python benchmarks/mask_fitting.py [--rows 166] [--size 224] [--repeats 30]; set OMP_NUM_THREADS=1 and
OMP_WAIT_POLICY=PASSIVE to compare one thread with one thread. open3d only answers which triangle each pixel sees
(scene build + cast, since the vertices move in every step); it has no gradient. Times are the smallest of the
repeats, wall and processor (all threads).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from fitting import (
    Camera,
    LabelCosts,
    PartRenderer,
    Renderer,
    clip_positions,
    frobenius_loss,
    mask_targets,
    part_iou,
    region_loss,
    render_labels,
)

ELLIPSES = [  # label, centre x, centre y, radii in mm
    (2, -30, 44, 18, 5),
    (2, 30, 44, 18, 5),
    (3, -30, 28, 14, 5),
    (3, 30, 28, 14, 5),
    (4, 0, 10, 15, 22),
    (5, 0, -30, 22, 5),
    (6, 0, -40, 20, 5),
]


def labelled_dome(rows: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """rows^2 vertices (1, V, 3) on a dome of 170 x 190 mm, its triangles and vertex labels."""
    x, y = np.meshgrid(np.linspace(-85, 85, rows), np.linspace(-95, 95, rows))
    z = 60 - 36 * ((x / 85) ** 2 + (y / 95) ** 2)
    ids = np.arange(rows * rows).reshape(rows, rows)
    a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
    labels = np.ones(rows * rows, int)
    for label, cx, cy, rx, ry in ELLIPSES:
        labels[(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1).ravel()] = label
    vertices = torch.from_numpy(np.stack([x, y, z], -1).reshape(1, -1, 3).astype(np.float32))
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]), labels


def measure(action: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Smallest wall and processor time of one call, ms."""
    action()
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return 1e3 * min(wall), 1e3 * min(cpu)


def ray_caster(vertices: torch.Tensor, faces: np.ndarray, camera: Camera) -> Callable[[], object]:
    import open3d as o3d

    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    direction = np.stack([(columns - camera.cx) / camera.fx, (camera.cy - rows) / camera.fy, -np.ones_like(rows)], -1)
    origin = np.broadcast_to([0, 0, camera.distance], direction.shape)
    rays = o3d.core.Tensor(np.concatenate([origin, direction], -1).astype(np.float32))
    points, triangles = o3d.core.Tensor(vertices[0].numpy()), o3d.core.Tensor(faces.astype(np.uint32))

    def cast() -> object:
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(points, triangles)
        return scene.cast_rays(rays)

    return cast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=166)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vertices, faces, labels = labelled_dome(options.rows)
    camera = Camera.deep3d(options.size)
    masks = torch.roll(render_labels(vertices, labels, camera, faces, backend="cpu"), (3, 2), (1, 2))
    clip = clip_positions(vertices, camera)
    plain = Renderer(faces, options.size, "cpu")

    def step(batch: int, gradient: str, image_loss: Callable | None) -> Callable[[], object]:
        renderer = PartRenderer(faces, labels, camera, gradient=gradient, backend="cpu")
        targets = mask_targets(masks.repeat(batch, 1, 1))
        costs = LabelCosts.from_targets(targets)
        moving = vertices.repeat(batch, 1, 1).requires_grad_()

        def run() -> None:
            moving.grad = None
            loss = (
                image_loss(renderer.parts(moving), targets)
                if image_loss
                else renderer.region_loss(moving, targets, costs)
            )
            loss.sum().backward()

        return run

    cases: list[tuple[str, int, Callable[[], object]]] = [
        ("raster", 1, lambda: plain.rasterise(clip)),
        ("raster + region loss + label-edge gradient", 1, step(1, "label-edge", None)),
        ("the same, 8 photos", 8, step(8, "label-edge", None)),
        ("part image + region loss + label-edge gradient", 1, step(1, "label-edge", region_loss)),
        ("part image + softened Frobenius + label-edge", 1, step(1, "label-edge", frobenius_loss)),
        ("interpolation + region loss + gradient", 1, step(1, "interpolation", region_loss)),
        ("antialias + region loss + gradient", 1, step(1, "antialias", region_loss)),
        ("targets of a mask", 1, lambda: mask_targets(masks)),
        ("overlap of two label maps", 1, lambda: part_iou(masks, masks)),
    ]
    base_wall, base_cpu = measure(ray_caster(vertices, faces, camera), max(options.repeats // 5, 3))
    print(f"{vertices.shape[1]} vertices, {len(faces)} triangles, {options.size} px; ms per photo, wall (processor)")
    print(f"{'open3d scene build + cast, no gradient':50s}{base_wall:8.2f} ({base_cpu:.2f})   1")
    for name, photos, action in cases:
        wall, cpu = (value / photos for value in measure(action, options.repeats))
        print(
            f"{name:50s}{wall:8.2f} ({cpu:.2f})   {base_wall / wall:.1f} x faster, {base_cpu / cpu:.1f} x by processor"
        )


if __name__ == "__main__":
    main()

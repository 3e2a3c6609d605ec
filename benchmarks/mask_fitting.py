"""How fast is one step of mask fitting (raster + region loss + gradient), beside open3d's ray caster and plain torch?

python benchmarks/mask_fitting.py [--model synthetic-35k] [--repeats 15] [--large]; set OMP_NUM_THREADS=1 and
OMP_WAIT_POLICY=PASSIVE to compare one thread with one thread. Cells are ms per photo, processor time of all threads
and wall time in brackets, each the smallest of the repeats. --large adds 512 px with 16 photos (2 GB).

open3d only answers which triangle each pixel sees (scene build + cast, since the vertices move in every step) and
has no gradient. "torch interpolation" is the numba rasteriser for visibility and torch autograd for everything
else: the step as one would write it without kernels for it, with the gradient "interpolation".
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataset_builder import FaceModel, load_face_model
from fitting import Camera, LabelCosts, PartRenderer, Renderer, clip_positions, mask_targets, region_loss, render_labels

Step = Callable[[], object]


def measure(action: Step, repeats: int) -> tuple[float, float]:
    """Smallest processor (all threads) and wall time of one call, ms."""
    action()
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return 1e3 * min(cpu), 1e3 * min(wall)


def ray_caster(vertices: Tensor, faces: np.ndarray, camera: Camera) -> Step:
    import open3d as o3d

    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    direction = np.stack([(columns - camera.cx) / camera.fx, (camera.cy - rows) / camera.fy, -np.ones_like(rows)], -1)
    origin = np.broadcast_to([0, 0, camera.distance], direction.shape)
    rays = o3d.core.Tensor(np.concatenate([origin, direction], -1).astype(np.float32))
    points, triangles = o3d.core.Tensor(vertices.numpy()), o3d.core.Tensor(faces.astype(np.uint32))

    def cast() -> object:
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(points, triangles)
        return scene.cast_rays(rays)

    return cast


def torch_interpolation(clip: Tensor, colours: Tensor, faces: Tensor, raster: Tensor) -> Tensor:
    """(B, H, W, C) by torch autograd from clip (B, V, 4) and colours (V, C); raster only says what is seen."""
    height, width = raster.shape[1:3]
    owner = raster[..., 3].long()
    corners = faces[(owner - 1).clamp_min(0)]
    position = torch.stack([points[corner] for points, corner in zip(clip, corners, strict=True)])
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    px, py = (
        position[..., axis] - centre * position[..., 3] for axis, centre in ((0, x[:, None]), (1, y[:, None, None]))
    )
    cross = torch.stack([px[..., i] * py[..., j] - px[..., j] * py[..., i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
    weights = cross / torch.where(owner > 0, cross.sum(-1), 1.0)[..., None]
    return (weights[..., None] * colours[corners]).sum(-2) * (owner > 0)[..., None]


@dataclass(frozen=True)
class Photos:
    """A batch of the same face, and the masks of the face shifted by 3, 2 px as targets."""

    model: FaceModel
    size: int
    batch: int

    @property
    def camera(self) -> Camera:
        return Camera.deep3d(self.size)

    @property
    def vertices(self) -> Tensor:
        return torch.from_numpy(self.model.mean).repeat(self.batch, 1, 1)

    def masks(self) -> Tensor:
        labels = render_labels(self.vertices, self.model.labels, self.camera, self.model.faces, backend="cpu")
        return torch.roll(labels, (3, 2), (1, 2))

    def step(self, gradient: str, supersample: int = 1) -> Step:
        renderer = PartRenderer(
            self.model.faces, self.model.labels, self.camera, gradient=gradient, backend="cpu", supersample=supersample
        )
        targets = mask_targets(self.masks())
        costs = LabelCosts.from_targets(targets)
        moving = self.vertices.requires_grad_()

        def run() -> None:
            moving.grad = None
            renderer.region_loss(moving, targets, costs).sum().backward()

        return run

    def raster(self) -> Step:
        renderer = Renderer(self.model.faces, self.size, "cpu")
        clip = clip_positions(self.vertices, self.camera)
        return lambda: renderer.rasterise(clip)

    def torch_step(self) -> Step:
        renderer = Renderer(self.model.faces, self.size, "cpu")
        targets, faces = mask_targets(self.masks()), torch.from_numpy(self.model.faces)
        colours = torch.nn.functional.one_hot(torch.from_numpy(self.model.labels), 7)[:, 2:].float()
        moving = self.vertices.requires_grad_()

        def run() -> None:
            moving.grad = None
            clip = clip_positions(moving, self.camera)
            raster = renderer.rasterise(clip.detach())
            region_loss(torch_interpolation(clip, colours, faces, raster), targets).sum().backward()

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic-35k")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_face_model(options.model)
    columns = [Photos(model, size, batch) for size, batch in ((224, 1), (224, 16), (512, 1), (512, 16))]
    columns = columns if options.large else columns[:3]
    rows: list[tuple[str, Callable[[Photos], Step]]] = [
        (
            "open3d: scene build + cast, no gradient",
            lambda photos: ray_caster(photos.vertices[0], model.faces, photos.camera),
        ),
        ("raster alone, no gradient", Photos.raster),
        ("torch interpolation (numba visibility)", Photos.torch_step),
        *(
            (f"{gradient}, supersample {factor}", lambda photos, g=gradient, f=factor: photos.step(g, f))
            for factor in (1, 2)
            for gradient in ("label-edge", "label-edge-shared", "interpolation", "antialias", "edge")
        ),
    ]
    print(f"{options.model}: {len(model.mean)} vertices, {len(model.faces)} triangles; ms per photo, processor (wall)")
    print(f"{'':40s}" + "".join(f"{photos.size} px, batch {photos.batch}".rjust(18) for photos in columns))
    for name, build in rows:
        cells = []
        for photos in columns:
            if name.startswith("open3d") and photos.batch > 1:
                cells.append("-")  # one scene holds one photo
                continue
            cpu, wall = (value / photos.batch for value in measure(build(photos), options.repeats // photos.batch + 2))
            cells.append(f"{cpu:.1f} ({wall:.1f})")
        print(f"{name:40s}" + "".join(cell.rjust(18) for cell in cells), flush=True)


if __name__ == "__main__":
    main()

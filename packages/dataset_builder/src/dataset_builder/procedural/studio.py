"""What the photographs of one face model share: texture maps, boundaries, ambient occlusion, the ray caster."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera import CropCamera
from ..face_model import FaceModel
from ..normals import vertex_normals
from ..parts import LABEL_IDS
from .albedo import DistanceMaps, EyeState, distance_maps
from .appearance import Appearance
from .chart import Chart
from .model import triangle_labels
from .outlines import build_outlines

Array = NDArray[np.floating]
Int64 = NDArray[np.int64]
Mesh = tuple[Array, Int64]

_OFFSET, _REACH = 0.6, 70.0
_OCCLUSION_RAYS = 32


@dataclass(frozen=True)
class Hits:
    """First hits of N rays: piece (N,) int64, -1 for none; triangle (N,) int64; barycentric weights (N, 3)."""

    piece: Int64
    triangle: Int64
    weights: Array


@dataclass(frozen=True, eq=False)
class Studio:
    """Precomputed once per face model.

    Attributes:
        model: a procedural face.
        labels: (F,) part ids of its triangles.
        canonical, chart: (V, 2) canonical points and chart coordinates, mm.
        maps: distances to the part outlines.
        rim_ids: outer boundary in order.
        lip_ids: lower edge of the upper lip, by x.
        lid_ids: right upper, right lower, left upper, left lower lid edges, from the inner corner outwards.
        occlusion: (V,) ambient occlusion of the mean face, 1 = open.
    """

    model: FaceModel
    labels: Int64
    canonical: Array
    chart: Array
    maps: DistanceMaps
    rim_ids: Int64
    lip_ids: Int64
    lid_ids: tuple[Int64, Int64, Int64, Int64]
    occlusion: Array

    @classmethod
    def of(cls, model: FaceModel) -> "Studio":
        """Prepare a procedural face for photographs.

        Raises:
            ValueError: for a face model without canonical points or labels.
            ImportError: when open3d is not installed.
        """
        if model.chart is None or model.labels is None:
            raise ValueError(
                f"face model {model.name!r} has no canonical points; only built-in faces can be photographed"
            )
        outlines = build_outlines()
        canonical = model.chart.astype(float)
        loops = sorted(boundary_loops(model.faces), key=len)
        lip = np.concatenate(loops[:-1])
        lip = lip[model.labels[lip] == LABEL_IDS["upper_lip"]]
        on_lid = np.flatnonzero(np.abs(outlines.distance("eye", canonical)) < 0.02)
        return cls(
            model=model,
            labels=triangle_labels(model),
            canonical=canonical,
            chart=Chart(outlines.rim)(canonical),
            maps=distance_maps(),
            rim_ids=loops[-1],
            lip_ids=lip[canonical[lip, 0].argsort()],
            lid_ids=tuple(_lid(canonical, on_lid, side, up) for side in (-1, 1) for up in (True, False)),  # type: ignore[arg-type]
            occlusion=_ambient_occlusion(model),
        )

    def eyes(self, face: Array) -> tuple[EyeState, EyeState]:
        """The subject's right and left eye of a face (V, 3) in its own frame."""
        states = []
        for side in range(2):
            upper, lower = (face[ids, :2] for ids in self.lid_ids[2 * side : 2 * side + 2])
            states.append(EyeState((upper[0] + upper[-1]) / 2 + [0.0, 1.2], upper, lower))
        return states[0], states[1]

    def mouth_gap(self, face: Array) -> float:
        """Distance between the lips on the midline of a face (V, 3), mm."""
        upper, lower = self.model.landmarks68[[62, 66]]
        return float(np.linalg.norm(face[upper] - face[lower]))


def key_light_share(scene: Any, vertices: Array, normals: Array, look: Appearance, n_rays: int) -> Array:
    """Share (N,) of the key light that reaches camera-frame vertices (N, 3), by rays spread over a soft light."""
    facing = np.flatnonzero(normals @ look.key_direction > -0.25)
    rng = np.random.default_rng([look.seed, 41])
    lights = look.key_direction + rng.normal(0, 0.09, (n_rays, 3))
    origins = vertices[facing] + _OFFSET * normals[facing]
    lit = np.zeros(len(vertices))
    lit[facing] = 1 - _blocked(scene, origins, lights).mean(1)
    return lit


def _lid(canonical: Array, on_lid: Int64, side: int, upper: bool) -> Int64:
    ids = on_lid[canonical[on_lid, 0] * side > 0]
    ids = ids[np.abs(canonical[ids, 0]).argsort()]
    (x0, y0), (x1, y1) = np.abs(canonical[ids[[0, -1]]])
    above = canonical[ids, 1] - y0 - (np.abs(canonical[ids, 0]) - x0) * (y1 - y0) / (x1 - x0)
    keep = (above > 0) == upper
    keep[[0, -1]] = True
    return np.asarray(ids[keep])


def boundary_loops(faces: Int64) -> list[Int64]:
    """Vertex ids of every boundary loop, in order along the triangles' sides."""
    sides = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    n = int(faces.max()) + 1
    inner = np.isin(sides[:, 0] * n + sides[:, 1], sides[:, 1] * n + sides[:, 0])
    after = dict(sides[~inner].tolist())
    loops = []
    while after:
        start, vertex = after.popitem()
        loop = [start]
        while vertex != start:
            loop.append(vertex)
            vertex = after.pop(vertex)
        loops.append(np.array(loop, np.int64))
    return loops


def build_scene(meshes: list[Mesh]) -> Any:
    """Ray-casting scene of several meshes; hits name them by their position in the list.

    Raises:
        ImportError: when open3d is not installed.
    """
    try:
        import open3d as o3d
    except ImportError as error:
        raise ImportError("synthetic photographs need open3d: pip install 'neo3df-dataset-builder[photos]'") from error
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    for vertices, faces in meshes:
        scene.add_triangles(
            o3d.core.Tensor.from_numpy(np.ascontiguousarray(vertices, np.float32)),
            o3d.core.Tensor.from_numpy(np.ascontiguousarray(faces, np.uint32)),
        )
    return scene


def cast(scene: Any, camera: CropCamera, per_pixel: int) -> Hits:
    """First hits through the centres of a grid of ``per_pixel`` x ``per_pixel`` cells in every pixel, row by row."""
    import open3d as o3d

    at = (np.arange(camera.size * per_pixel) + 0.5) / per_pixel
    column, row = np.meshgrid(at, at)
    rays = np.zeros((column.size, 6), np.float32)
    rays[:, 2] = camera.distance
    rays[:, 3] = ((column - camera.centre) / camera.focal).ravel()
    rays[:, 4] = -((row - camera.centre) / camera.focal).ravel()
    rays[:, 5] = -1.0
    answer = scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
    uv = answer["primitive_uvs"].numpy()
    hit = np.isfinite(answer["t_hit"].numpy())
    piece = np.where(hit, answer["geometry_ids"].numpy().astype(np.int64), -1)
    triangle = np.where(hit, answer["primitive_ids"].numpy().astype(np.int64), 0)
    return Hits(piece, triangle, np.column_stack([1 - uv.sum(1), uv]))


def _blocked(scene: Any, origins: Array, directions: Array, reach: float = np.inf) -> NDArray[np.bool_]:
    import open3d as o3d

    rays = np.empty((len(origins), len(directions), 6), np.float32)
    rays[..., :3], rays[..., 3:] = origins[:, None], directions
    return np.asarray(
        scene.test_occlusions(o3d.core.Tensor.from_numpy(rays), tnear=0.0, tfar=reach, nthreads=1).numpy()
    )


def _ambient_occlusion(model: FaceModel) -> Array:
    """Share of cosine-weighted directions that are free, on the mean face."""
    vertices = model.mean.astype(float)
    normals = vertex_normals(vertices, model.faces)
    scene = build_scene([(vertices, model.faces)])
    k = np.arange(_OCCLUSION_RAYS) + 0.5
    golden = np.pi * (1 + 5**0.5) * k
    height = 1 - 2 * k / _OCCLUSION_RAYS
    ring = np.sqrt(1 - height**2)
    sphere = np.column_stack([np.cos(golden) * ring, np.sin(golden) * ring, height])
    origins = vertices + _OFFSET * normals
    free = 1 - _blocked(scene, origins, sphere, _REACH)
    weight = (normals @ sphere.T).clip(0, None)
    return np.asarray((free * weight).sum(1) / weight.sum(1))

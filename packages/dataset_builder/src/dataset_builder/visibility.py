"""Which vertices and triangles of a posed face the camera sees."""

import numpy as np
from numpy.typing import NDArray

from .camera import CropCamera
from .face_model import Int64
from .normals import vertex_normals

_SLACK_MM = 0.5


def visible_vertices(
    vertices: NDArray[np.floating], faces: Int64, camera: CropCamera | None = None
) -> NDArray[np.bool_]:
    """Mask (V,) of the camera-frame vertices (V, 3), mm, that face the camera with nothing of the mesh before them.

    A vertex faces the camera if its area-weighted normal does. Occlusion is tested by casting a ray from the camera to
    every facing vertex; triangles within half a millimetre of the vertex do not hide it.

    Raises:
        ImportError: if open3d is not installed (extra ``photos``).
    """
    camera = camera or CropCamera()
    eye = np.array([0, 0, camera.distance])
    normals = vertex_normals(vertices, faces)
    visible = ((eye - vertices) * normals).sum(-1) > 0
    facing = np.flatnonzero(visible)
    visible[facing] = ~_occluded(vertices, faces, vertices[facing], eye)
    return visible


def visible_triangles(
    vertices: NDArray[np.floating], faces: Int64, camera: CropCamera | None = None
) -> NDArray[np.bool_]:
    """Mask (F,) of the triangles that face the camera and whose centroid has nothing of the mesh before it.

    The same test as :func:`visible_vertices`, with the triangle's own normal.

    Raises:
        ImportError: if open3d is not installed (extra ``photos``).
    """
    camera = camera or CropCamera()
    eye = np.array([0, 0, camera.distance])
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    centroids = (a + b + c) / 3
    visible = ((eye - centroids) * np.cross(b - a, c - a)).sum(-1) > 0
    facing = np.flatnonzero(visible)
    visible[facing] = ~_occluded(vertices, faces, centroids[facing], eye)
    return visible


def _occluded(
    vertices: NDArray[np.floating], faces: Int64, targets: NDArray[np.floating], eye: NDArray[np.floating]
) -> NDArray[np.bool_]:
    try:
        import open3d
    except ImportError as error:
        raise ImportError(
            "seeing which vertices are visible needs open3d: pip install neo3df-dataset-builder[photos]"
        ) from error
    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        open3d.core.Tensor.from_numpy(np.ascontiguousarray(vertices, np.float32)),
        open3d.core.Tensor.from_numpy(np.ascontiguousarray(faces, np.uint32)),
    )
    direction = targets - eye
    distance = np.linalg.norm(direction, axis=-1, keepdims=True)
    rays = np.concatenate([np.broadcast_to(eye, targets.shape), direction / distance], -1).astype(np.float32)
    hit = scene.cast_rays(open3d.core.Tensor.from_numpy(rays), nthreads=1)["t_hit"].numpy()
    return hit < distance[:, 0] - _SLACK_MM

"""Renders of any face model with one colour per vertex, in the standard crop, for a parser to look at."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from .alignment import CROP_SIZE
from .camera import CropCamera
from .face_model import FaceModel
from .landmark_fit import FaceEstimate
from .normals import vertex_normals
from .procedural.studio import Hits, build_scene, cast
from .spherical_harmonics import irradiance_basis, sh_shading

Array = NDArray[np.floating]
UInt8 = NDArray[np.uint8]

_SUPERSAMPLING = 2
_DARK = np.array([0.16, 0.09, 0.08])  # inside of the mouth, sRGB


class FaceRenderer:
    """Renders faces of one model, each under a light of its own: white, from everywhere, stronger from one side.

    What shows through a hole of the mesh, as the open mouth, is dark.

    Args:
        model: the face.
        colours: (V, 3) float, sRGB in [0, 1].
        background: (224, 224, 3) uint8 behind the faces; mid grey when left out.
        light_tilt: standard deviation of the light's change upwards and sideways; 0 shows the colours as they are.
        seed: of the lights; face i of a call has light i.

    Raises:
        ValueError: ``colours`` or ``background`` has the wrong shape, or a colour is outside [0, 1].
    """

    def __init__(
        self,
        model: FaceModel,
        colours: Array,
        *,
        background: UInt8 | None = None,
        light_tilt: float = 0.1,
        seed: int = 0,
    ) -> None:
        if colours.shape != (model.n_vertices, 3) or not (colours.min() >= 0 and colours.max() <= 1):
            raise ValueError(
                f"colours must be ({model.n_vertices}, 3) within 0..1, got {colours.shape} within "
                f"{colours.min():.3g}..{colours.max():.3g}"
            )
        if background is None:
            background = np.full((CROP_SIZE, CROP_SIZE, 3), 128, np.uint8)
        if background.shape != (CROP_SIZE, CROP_SIZE, 3):
            raise ValueError(f"background must be ({CROP_SIZE}, {CROP_SIZE}, 3), got {background.shape}")
        self._model, self._colours = model, np.asarray(colours, np.float32)
        self._background = background.astype(np.float32) / 255
        self._light_tilt, self._seed = light_tilt, seed

    def __call__(self, faces: FaceEstimate) -> UInt8:
        """Crops (N, 224, 224, 3) uint8 RGB of the faces in their poses.

        Raises:
            ImportError: if open3d is not installed (extra ``photos``).
        """
        crops = np.empty((len(faces), CROP_SIZE, CROP_SIZE, 3), np.uint8)
        for row in range(len(faces)):
            crops[row] = self._render(faces.posed(self._model, row), self._light(row))
        return crops

    def _light(self, row: int) -> NDArray[np.float64]:
        """Coefficients (3, 9) that light a surface towards the camera with 1, and one turned up or aside otherwise."""
        up, aside = np.random.default_rng([self._seed, row, 71]).normal(0, self._light_tilt, 2).clip(-0.4, 0.4)
        light = np.array([1, up, 0, aside, 0, 0, 0, 0, 0])
        return np.tile(light / (irradiance_basis(np.array([0.0, 0.0, 1.0])) @ light), (3, 1))

    def _render(self, vertices: Array, light: Array) -> UInt8:
        faces = self._model.faces
        lit = self._colours * sh_shading(vertex_normals(vertices, faces), light).clip(0.1)
        hits = cast(build_scene([(vertices, faces)]), CropCamera(), _SUPERSAMPLING)
        fine = _over_background(hits, lit[faces], self._background)
        k = _SUPERSAMPLING
        image = fine.reshape(CROP_SIZE, k, CROP_SIZE, k, 3).mean((1, 3))
        return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _over_background(hits: Hits, corner_colours: Array, background: Array) -> Array:
    side = CROP_SIZE * _SUPERSAMPLING
    face = (hits.piece == 0).reshape(side, side)
    image = background.repeat(_SUPERSAMPLING, 0).repeat(_SUPERSAMPLING, 1).astype(np.float64)
    image[binary_fill_holes(face)] = _DARK
    own = face.ravel()
    image[face] = np.einsum("nk,nkc->nc", hits.weights[own], corner_colours[hits.triangle[own]])
    return image

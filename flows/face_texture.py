"""The skin of a reconstructed face: colours that its photo shows, in the texture where the model has coordinates."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_fill_holes, distance_transform_edt, map_coordinates, minimum_filter
from scipy.spatial import cKDTree

from dataset_builder import FaceModel, Photo, vertex_normals
from editing import LABEL_IDS, Sight, TexelMap, bake_texture, fill_colours, roomy_uv, sample_photo, without_strangers
from fitting import Camera, Renderer, clip_positions

from .atomic import replacing
from .errors import UserError
from .pictures import png_bytes

Array = NDArray[np.floating]
Bool = NDArray[np.bool_]
Rgb = NDArray[np.uint8]

TEXTURE, COLOURS = "texture.png", "colours.npy"
SIZE = 1024

_PIXELS_PER_MM = 3.0  # of the depth map
_BORDER_MM = (2.0, 7.0)  # distance from the silhouette or a mask's border: not believed below, fully believed above
_BESIDE_MM, _NEARER_MM = 1.0, 5.0  # a point is hidden by what is this near in the picture and so much nearer to us
_INNER_MM = 50.0  # around the tip of the nose: no hair, no background
NOSE_TIP = 30  # of the 68 landmarks
_FACING = (0.2, 0.5)  # cosine between normal and view: not believed below, fully believed above


@dataclass(frozen=True)
class FaceTexture:
    """Colours (V, 3) uint8 sRGB of the vertices.

    And, where the model has texture coordinates, the picture (S, S, 3) with its ``uv`` (V, 2), v up, of `roomy_uv`.
    """

    colours: Rgb
    picture: Rgb | None = None
    uv: Array | None = None

    def write(self, folder: Path) -> None:
        """Keep it beside a ``face.json``: ``texture.png``, or ``colours.npy`` without texture coordinates."""
        with replacing(folder / (COLOURS if self.picture is None else TEXTURE)) as temporary:
            if self.picture is not None:
                temporary.write_bytes(png_bytes(self.picture))
            else:
                with temporary.open("wb") as stream:
                    np.save(stream, self.colours)


def read_texture(folder: Path, model: FaceModel) -> FaceTexture | None:
    """What :meth:`FaceTexture.write` kept in a folder for a face of this model, None where there is nothing.

    UserError for a file that is damaged or belongs to another model.
    """
    path = folder / (COLOURS if model.uv is None else TEXTURE)
    if not path.exists():
        return None
    try:
        if model.uv is None:
            colours = np.load(path, allow_pickle=False)
            if colours.shape != (model.n_vertices, 3) or colours.dtype != np.uint8:
                raise ValueError(f"it holds {colours.dtype} {colours.shape}, expected uint8 {(model.n_vertices, 3)}")
            return FaceTexture(colours)
        with Image.open(path) as stored:
            return textured(np.asarray(stored.convert("RGB")), roomy_uv(model.mean, model.faces, model.uv))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the face's texture {path}: {error}") from error


def textured(picture: Rgb, uv: Array) -> FaceTexture:
    """A texture with the vertex colours (V, 3) that it has at the texture coordinates (V, 2), v up."""
    height, width = picture.shape[:2]
    colours = sample_photo(picture, np.stack([uv[:, 0] * width, (1 - uv[:, 1]) * height], 1))
    return FaceTexture(np.rint(colours * 255).astype(np.uint8), picture, uv)


def photo_texture(
    model: FaceModel, labels: NDArray[np.int64], vertices: Array, camera: Camera, photo: Photo, size: int = SIZE
) -> FaceTexture | None:
    """The face's colours as a photo shows them.

    Args:
        model: the face: triangles, mirror, texture coordinates.
        labels: (V,) part labels.
        vertices: (V, 3) mm, camera frame, posed and with the photo's expression.
        camera: of the whole photo (``Camera.to_photo``).
        photo: pixels outside of its mask, or that its mask ignores, are not used; without a mask, what one side shows
            unlike skin where the other has skin.
        size: texels a side.

    Returns:
        The texture, or None where the photo shows nothing of the face.
    """
    view = PhotoView(vertices, model.faces, camera, photo, size)
    normals = vertex_normals(vertices, model.faces)
    mirror = model.mirror if model.mirror is not None else cKDTree(model.mean).query(model.mean * [-1, 1, 1])[1]
    at_vertices = view(vertices, normals)
    if photo.mask is None:
        skin = np.isin(labels, (LABEL_IDS["rest"], LABEL_IDS["nose"]))
        inner = np.linalg.norm(model.mean - model.mean[model.landmarks68[NOSE_TIP]], axis=1) < _INNER_MM
        at_vertices = without_strangers(at_vertices, model.faces, skin, inner, mirror)
    if not at_vertices.weight.max() > 0:
        return None
    filled = fill_colours(at_vertices, model.faces, mirror)
    if model.uv is None:
        return FaceTexture(np.rint(filled * 255).astype(np.uint8))
    uv = roomy_uv(model.mean, model.faces, model.uv)
    texels = texel_map(uv, model.faces, size)
    direct = view(texels.at(vertices, model.faces), texels.at(normals, model.faces))
    opposite = view(texels.at(vertices[mirror], model.faces), texels.at(normals[mirror], model.faces))
    picture = bake_texture(texels, model.faces, at_vertices, filled, direct, opposite, mirror)
    return textured(picture, uv)


def texel_map(uv: Array, faces: NDArray[np.int64], size: int) -> TexelMap:
    """The texels (size, size) that texture coordinates (V, 2), v up, cover."""
    clip = np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], np.zeros(len(uv)), np.ones(len(uv))], 1)
    renderer = Renderer(faces, size, backend="cpu", antialias=False)
    raster = renderer.rasterise(torch.from_numpy(clip.astype(np.float32))[None])[0].numpy()
    covered = raster[..., 3] > 0
    u, v, _, number = raster[covered].T.astype(np.float64)
    return TexelMap(covered, number.astype(np.int64) - 1, np.stack([u, v, 1 - u - v], 1))


class PhotoView:
    """What a photo shows of a face: colours and how far to believe them, at any points of its surface.

    Args:
        vertices: (V, 3) mm, camera frame.
        faces: (F, 3).
        camera: of the whole photo.
        photo: the photo; its mask's background and what its mask ignores are not the face.
        size: texels a side of the texture that is to be made; a much larger photo is averaged first.
    """

    def __init__(
        self, vertices: Array, faces: NDArray[np.int64], camera: Camera, photo: Photo, size: int = SIZE
    ) -> None:
        self._camera = camera
        pixels = _project(vertices, camera)
        self._shrink = max(1, int(np.ptp(pixels[:, 1]) / size))
        self._image = np.asarray(Image.fromarray(photo.image).reduce(self._shrink))
        self._near, self._map_scale = _depth_camera(pixels, camera)
        renderer = Renderer(faces, (self._near.height, self._near.width), backend="cpu", antialias=False)
        positions = torch.from_numpy(vertices.astype(np.float32))[None]
        depth = camera.distance - positions[0, :, 2:]
        rendered, raster = renderer(clip_positions(positions, self._near), depth)
        covered = raster[0, ..., 3].numpy() > 0
        reach = 2 * round(_BESIDE_MM * _PIXELS_PER_MM) + 1
        self._nearest = minimum_filter(np.where(covered, rendered[0, ..., 0].numpy(), np.inf), reach)
        inside = np.pad(binary_fill_holes(covered) & self._shown(photo), 1)
        border = distance_transform_edt(inside)[1:-1, 1:-1] / _PIXELS_PER_MM
        self._belief = _ramp(border, *_BORDER_MM)

    def __call__(self, points: Array, normals: Array) -> Sight:
        """What is seen at points (N, 3) mm, camera frame, of the surface with normals (N, 3)."""
        view = np.array([0, 0, self._camera.distance]) - points
        lengths = np.linalg.norm(normals, axis=1) * np.linalg.norm(view, axis=1)
        cosine = (normals * view).sum(1) / np.maximum(lengths, 1e-9)
        at = _project(points, self._near)[:, ::-1].T - 0.5
        nearest = map_coordinates(self._nearest, at, order=0, mode="nearest")
        belief = map_coordinates(self._belief, at, order=1, mode="constant")
        hidden = nearest < view[:, 2] - _NEARER_MM
        weight = np.where(hidden, 0, belief * _ramp(cosine, *_FACING))
        return Sight(sample_photo(self._image, _project(points, self._camera) / self._shrink), weight)

    def _shown(self, photo: Photo) -> Bool:
        """Which pixels of the depth map lie in the photo, and on the face where there is a mask."""
        rows, columns = np.mgrid[: self._near.height, : self._near.width] + 0.5
        x = (columns - self._near.cx) / self._map_scale + self._camera.cx
        y = (rows - self._near.cy) / self._map_scale + self._camera.cy
        height, width = photo.image.shape[:2]
        shown = (x > 0) & (x < width) & (y > 0) & (y < height)
        if photo.mask is None:
            return shown
        ignore = np.zeros(photo.mask.shape, bool) if photo.ignore is None else photo.ignore
        face = binary_fill_holes((photo.mask > 0) | ignore) & ~ignore  # the open mouth is a hole of the mask
        h, w = face.shape
        row, column = (y * h / height).astype(int).clip(0, h - 1), (x * w / width).astype(int).clip(0, w - 1)
        return shown & face[row, column]


def _depth_camera(pixels: Array, camera: Camera) -> tuple[Camera, float]:
    """The camera on the face alone, whose vertices fall on ``pixels`` (V, 2), and how many pixels it has per pixel."""
    scale = _PIXELS_PER_MM * camera.distance / camera.fy
    low, high = pixels.min(0) - 2 / scale, pixels.max(0) + 2 / scale
    width, height = np.ceil((high - low) * scale).astype(int).tolist()
    return replace(
        camera,
        fx=camera.fx * scale,
        fy=camera.fy * scale,
        cx=float(camera.cx - low[0]) * scale,
        cy=float(camera.cy - low[1]) * scale,
        width=width,
        height=height,
    ), scale


def _project(points: Array, camera: Camera) -> Array:
    depth = camera.distance - points[:, 2]
    return np.stack([camera.fx * points[:, 0] / depth + camera.cx, camera.cy - camera.fy * points[:, 1] / depth], 1)


def _ramp(values: Array, low: float, high: float) -> Array:
    return ((values - low) / (high - low)).clip(0, 1)

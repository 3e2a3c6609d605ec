"""Pictures of faces: shaded meshes, part overlays, heat maps and montages, as RGB arrays and PNG bytes."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataset_builder import vertex_normals
from editing import PART_COLOURS
from fitting import Camera, Renderer, clip_positions

from .contracts import PARTS

Rgb = NDArray[np.uint8]
Points = NDArray[np.floating]

PART_RGB = np.array([(0, 0, 0), *(PART_COLOURS[r] for r in ("rest", *PARTS))], np.float32)
SKIN = np.array([205, 178, 160], np.float32) / 255
# DejaVu Sans comes with matplotlib and has the Greek letters and signs that Pillow's own font lacks.
FONT = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
LIGHTS = (((-0.4, 0.5, 0.8), 0.62), ((0.7, 0.1, 0.6), 0.28))
AMBIENT = 0.22


class Studio:
    """Draws meshes of one topology with fixed lights; one rasteriser per picture size is kept."""

    def __init__(self, faces: NDArray[np.int64], size: int = 224) -> None:
        self.faces = faces
        self.camera = Camera.deep3d(2 * size)
        self._renderer = Renderer(torch.from_numpy(faces), (2 * size, 2 * size), backend="cpu", antialias=False)

    def draw(
        self, vertices: NDArray[np.floating], colours: NDArray[np.floating] | None = None, yaw: float = 0.0
    ) -> Rgb:
        """Shaded picture (size, size, 3) uint8 of camera-frame vertices (V, 3) mm; ``yaw`` degrees turn the head first.

        ``colours`` (V, 3) in 0..1; skin colour when left out.
        """
        turned = vertices @ _turn(np.radians(yaw)).T
        normals = vertex_normals(turned, self.faces)
        colours = np.broadcast_to(SKIN, turned.shape) if colours is None else colours
        attributes = torch.from_numpy(np.concatenate([normals, colours], 1).astype(np.float32))
        positions = clip_positions(torch.from_numpy(turned.astype(np.float32))[None], self.camera)
        image, raster = self._renderer(positions, attributes)
        picture = _shade(image[0].numpy(), raster[0, ..., 3].numpy() > 0)
        half = picture.reshape(picture.shape[0] // 2, 2, picture.shape[1] // 2, 2, 3).mean((1, 3))
        return (half * 255).round().astype(np.uint8)


def _shade(image: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
    normal = image[..., :3] / np.linalg.norm(image[..., :3], axis=-1, keepdims=True).clip(1e-6)
    light = np.full(covered.shape, AMBIENT, np.float32)
    for direction, strength in LIGHTS:
        unit = np.asarray(direction, np.float32) / np.linalg.norm(direction)
        light += strength * (normal @ unit).clip(0)
    return np.where(covered[..., None], (image[..., 3:] * light[..., None]).clip(0, 1), np.float32(1.0))


def _turn(yaw: float) -> NDArray[np.float64]:
    return np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])


def overlay(photo: Rgb, labels: NDArray[np.uint8], opacity: float = 0.55) -> Rgb:
    """The photo (H, W, 3) with the five parts of a label image (H, W) laid over it."""
    tinted = photo.astype(np.float32)
    part = labels > 1
    tinted[part] = (1 - opacity) * tinted[part] + opacity * PART_RGB[labels[part]]
    return tinted.round().astype(np.uint8)


def difference(predicted: NDArray[np.uint8], target: NDArray[np.uint8]) -> Rgb:
    """Where two label images (H, W) agree on a part (grey) and where they do not (vermilion), on white."""
    picture = np.full((*predicted.shape, 3), 255, np.uint8)
    part = (predicted > 1) | (target > 1)
    picture[part & (predicted == target)] = (190, 190, 190)
    picture[part & (np.where(predicted > 1, predicted, 0) != np.where(target > 1, target, 0))] = (213, 94, 0)
    return picture


def heat_colours(distance: NDArray[np.floating], full_scale: float) -> NDArray[np.float32]:
    """Vertex colours (V, 3) of a distance (V,) in mm, from light to dark at ``full_scale`` mm (viridis, reversed)."""
    return matplotlib.colormaps["viridis_r"](np.clip(distance / full_scale, 0, 1))[:, :3].astype(np.float32)


def montage(
    rows: Sequence[Sequence[Rgb]], titles: Sequence[str] = (), gap: int = 4, row_titles: Sequence[str] = ()
) -> Rgb:
    """Pictures of one size set in rows on white, with a title over each column and beside each row if given."""
    height, width = rows[0][0].shape[:2]
    top, left = (22 if titles else 0), (150 if row_titles else 0)
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + columns * (width + gap) - gap, top + len(rows) * (height + gap) - gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 13)
    for j, title in enumerate(titles):
        pen.text((left + j * (width + gap) + 4, 2), title, "black", font)
    for i, row in enumerate(rows):
        if row_titles:
            pen.text((4, top + i * (height + gap) + height // 2 - 8), row_titles[i], "black", font)
        for j, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (left + j * (width + gap), top + i * (height + gap)))
    return np.asarray(sheet)


def png_bytes(picture: Rgb) -> bytes:
    """A picture (H, W, 3) or (H, W) uint8 as PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def jpeg_bytes(picture: Rgb) -> bytes:
    """A picture (H, W, 3) uint8 as JPEG of quality 88: a fifth of the PNG for montages of photographs."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=88)
    return stream.getvalue()

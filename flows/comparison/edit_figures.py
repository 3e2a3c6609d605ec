"""The pictures of NEO-3DF's figures 4 to 7: rows of small faces with their numbers below, narrow enough for a phone."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataset_builder import vertex_normals
from editing import PART_COLOURS
from fitting import LABEL_IDS, Camera, Renderer, clip_positions

from ..contracts import PARTS
from ..methods import OURS
from ..pictures import FONT, SKIN, Points, Rgb, Studio, montage
from .edit_reach import EditReach
from .nose_ablation import NoseEdit

HEAT = matplotlib.colormaps["cividis"]
"""Dark blue to yellow, evenly for readers with and without colour vision deficiency (Nunez et al. 2018)."""
COLUMNS = 3
TEXT, LINE = 13, 17
"""Height of letters and of lines, pixels."""
TURN = -40.0
NOSE_MM, MIDDLE_MM = 56.0, 104.0
"""How much is shown around a nose, alone and with eyes and mouth."""


class SoftLight:
    """Draws meshes of one topology from the front, dimmed only a little where they face away: colours can be read."""

    def __init__(self, faces: NDArray[np.int64], size: int) -> None:
        self._faces, self._size = faces, size
        self._camera = Camera.deep3d(2 * size)
        self._renderer = Renderer(torch.from_numpy(faces), (2 * size, 2 * size), backend="cpu", antialias=False)

    def draw(self, vertices: Points, colours: Points) -> Rgb:
        """Picture (size, size, 3) of vertices (V, 3) mm with colours (V, 3) in 0..1, on white."""
        light = vertex_normals(vertices, self._faces)[:, 2:]
        attributes = np.concatenate([light, colours], 1).astype(np.float32)
        positions = clip_positions(torch.from_numpy(vertices.astype(np.float32))[None], self._camera)
        image, raster = (x[0].numpy() for x in self._renderer(positions, torch.from_numpy(attributes)))
        lit = image[..., 1:] * (0.6 + 0.4 * image[..., :1].clip(0, 1))
        picture = np.where(raster[..., 3:] > 0, lit, 1.0)
        small = picture.reshape(self._size, 2, self._size, 2, 3).mean((1, 3))
        return (small.clip(0, 1) * 255).round().astype(np.uint8)


class CloseUp(Studio):
    """A studio whose pictures show ``width_mm`` about the origin."""

    def __init__(self, faces: NDArray[np.int64], size: int, width_mm: float) -> None:
        super().__init__(faces, size)
        focal = 2 * size * self.camera.distance / width_mm
        self.camera = replace(self.camera, fx=focal, fy=focal)


class EditPictures:
    """Draws the edits of faces of one topology."""

    def __init__(self, faces: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self._labels = labels
        self._heat, self._studio = SoftLight(faces, 220), Studio(faces, 150)
        self._middle, self._nose = CloseUp(faces, 140, MIDDLE_MM), CloseUp(faces, 190, NOSE_MM)

    def reach(self, columns: Sequence[tuple[Points, Sequence[EditReach]]]) -> Rgb:
        """Heat maps of some regions (rows) by some methods (columns): an unedited face and the reach of its edits."""
        drawn = [
            self._heat.draw(base, HEAT(row.reach / row.reach.max())[:, :3]) for base, rows in columns for row in rows
        ]
        tiles = iter(cropped(drawn))
        sheet: list[list[Rgb]] = [[] for _ in columns[0][1]]
        for _, rows in columns:
            for line, row in zip(sheet, rows, strict=True):
                below = f"{_words(row.region)} {row.reach.max():.1f} mm\nout/in {row.out_ratio:.2f}"
                line.append(labelled(next(tiles), below, row.method if row is rows[0] else ""))
        picture = sheet_of(sheet)
        return np.concatenate([picture, colour_bar(picture.shape[1])])

    def edits(self, columns: Sequence[tuple[str, Sequence[Points], Sequence[str]]]) -> Rgb:
        """The middle of turned faces: a column per method, (title, faces, what stands below each)."""
        rows: list[list[Rgb]] = [[] for _ in columns[0][1]]
        for title, faces, texts in columns:
            for i, (row, face, text) in enumerate(zip(rows, faces, texts, strict=True)):
                picture = self._middle.draw(self._about_the_nose(face), yaw=TURN)
                row.append(labelled(picture, text, "" if i else title))
        return sheet_of(rows)

    def steps(self, faces: Sequence[Points], edited: Sequence[str]) -> Rgb:
        """A face after each of several edits, the part that was edited in its colour, and last from the side."""
        tints = [self._tinted(region) for region in ("", *edited)]
        drawn = [self._studio.draw(face, tint) for face, tint in zip(faces, tints, strict=True)]
        tiles = cropped([*drawn, self._studio.draw(faces[-1], yaw=TURN)])
        texts = ["as fitted", *(f"{i}. {_words(region)}" for i, region in enumerate(edited, 1)), f"turned {-TURN:.0f}°"]
        labels = [labelled(tile, text) for tile, text in zip(tiles, texts, strict=True)]
        return sheet_of([labels[i : i + 4] for i in range(0, len(labels), 4)])

    def noses(self, edits: Iterable[NoseEdit], yaw: float) -> Rgb:
        """The edit of figure 7, the nose in its colour, seen from the side and near.

        First in full and without blending, then by both PCAs, blended: with offsets and without.
        """
        tiles = []
        full, unblended, *others = sorted(edits, key=lambda edit: (edit.title != OURS, not edit.blended))
        for edit in (full, unblended, *(other for other in others if other.blended)):
            picture = self._nose.draw(self._about_the_nose(edit.face), self._tinted("nose"), yaw)
            numbers = (
                f"mean shift {edit.translation.mean():.1f} mm\ncentre drifts {edit.drift.mean():.1f} mm\n"
                f"seam gap {edit.gap.max():.1f} mm"
            )
            tiles.append(labelled(picture, numbers, edit.name))
        return sheet_of([tiles[:2], tiles[2:]])

    def _tinted(self, region: str) -> Points:
        """Vertex colours (V, 3): skin, and a part half in its own colour."""
        colours = np.tile(SKIN, (len(self._labels), 1))
        if region in PARTS:
            own = self._of(region)
            colours[own] = (colours[own] + np.array(PART_COLOURS[region], np.float32) / 255) / 2
        return colours

    def _about_the_nose(self, face: Points) -> Points:
        """A face (V, 3) moved so that its nose is in the middle."""
        return face - face[self._of("nose")].mean(axis=0)

    def _of(self, part: str) -> NDArray[np.bool_]:
        return self._labels == LABEL_IDS[part]


def labelled(tile: Rgb, below: str, above: str = "") -> Rgb:
    """A picture with lines of text below it and a title above; a title takes two lines."""
    height, width = tile.shape[:2]
    title = textwrap.wrap(above, width // 8)[:2]
    top, lines = 2 * LINE + 3 if above else 0, below.splitlines()
    sheet = Image.new("RGB", (width, top + height + LINE * len(lines) + 4), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, TEXT)
    for i, line in enumerate(title):
        pen.text((2, LINE * (i + 2 - len(title))), line, "black", font)
    sheet.paste(Image.fromarray(tile), (0, top))
    for i, line in enumerate(lines):
        pen.text((2, top + height + LINE * i), line, "black", font)
    return np.asarray(sheet)


def sheet_of(rows: Iterable[Sequence[Rgb]]) -> Rgb:
    """Rows of tiles under each other; the tiles of a row are of one size."""
    strips = [montage([row], gap=6) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(s, ((0, 6), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.concatenate(padded)


def colour_bar(width: int) -> Rgb:
    """What the colours of the heat maps mean (about 40, width, 3)."""
    ramp = (HEAT(np.linspace(0, 1, width))[:, :3] * 255).round().astype(np.uint8)
    sheet = Image.fromarray(np.concatenate([np.tile(ramp, (14, 1, 1)), np.full((LINE + 4, width, 3), 255, np.uint8)]))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, TEXT)
    pen.text((2, 15), "0 mm", "black", font)
    pen.text((width - 2, 15), "largest of each map", "black", font, anchor="ra")
    return np.asarray(sheet)


def cropped(pictures: Sequence[Rgb]) -> list[Rgb]:
    """Pictures of one size without the rows and columns that are white in all of them."""
    covered = np.any([(picture < 255).any(-1) for picture in pictures], axis=0)
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    return [picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for picture in pictures]


def _words(name: str) -> str:
    return name.replace("_", " ")

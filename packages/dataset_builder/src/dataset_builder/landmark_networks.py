"""68 face landmarks of a photo by two small networks: PFLD (98 WFLW points) and slim-160 (68 points).

Their definitions of a point differ by up to a few pixels; the mean of both gives the best geometry.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._onnx import OnnxNetwork
from .assets import asset_path

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class _Window:
    """The square that a network looks at: its side and its shift down, as shares of the box's mean side."""

    size: int
    factor: float
    down: float


_PFLD_WINDOW = _Window(size=112, factor=1.0, down=0.05)
_SLIM_WINDOW = _Window(size=160, factor=1.1, down=0.1)
_FLATTEST = 0.05  # root of the summed squares across the line, by the box's side; 622 photos of all kinds: 1.8 or more


class LandmarkDetector:
    """The mean of both networks' landmarks.

    Raises:
        ImportError: onnxruntime is not installed; the message names the extra.
        AssetMissing: a network's file is missing.
    """

    def __init__(self) -> None:
        self._pfld = OnnxNetwork(asset_path("pfld_ghostone_98"))
        self._slim = OnnxNetwork(asset_path("peppa_slim160_68"))

    def detect(self, image: UInt8, box: Float64) -> Float64:
        """Landmarks (68, 2) in photo pixels, Multi-PIE order, low numbers at image left.

        Args:
            image: (H, W, 3) uint8 RGB.
            box: (4,) x0, y0, x1, y1 of the face, photo pixels, as :class:`FaceDetector` gives it.

        Raises:
            ValueError: the box is not four finite numbers with x0 < x1 and y0 < y1, or the networks see no face in it:
                points that are not finite, or nearly on a line.
        """
        points = (self.detect_pfld(image, box) + self.detect_slim(image, box)) / 2
        side = float(np.diff(np.reshape(box, (2, 2)), axis=0).mean())
        finite = bool(np.isfinite(points).all())
        if not finite or np.linalg.svd(points - points.mean(0), compute_uv=False)[1] < _FLATTEST * side:
            raise ValueError("the landmarks lie on a line or a point")
        return points

    def detect_pfld(self, image: UInt8, box: Float64) -> Float64:
        """Landmarks (68, 2) by PFLD alone (Guo et al. 2019, GhostOne variant), mapped from its 98."""
        crop, corner, side = _look_at(image, box, _PFLD_WINDOW)
        output = self._pfld(crop / np.float32(255))
        return map_98_to_68(output.reshape(98, 2) * side + corner)

    def detect_slim(self, image: UInt8, box: Float64) -> Float64:
        """Landmarks (68, 2) by slim-160 alone."""
        crop, corner, side = _look_at(image, box, _SLIM_WINDOW)
        output = self._slim((crop - np.float32(127.5)) / np.float32(128))
        return output[0, :136].reshape(68, 2) * side + corner


def map_98_to_68(points: NDArray[np.floating]) -> Float64:
    """Multi-PIE landmarks (..., 68, 2) of WFLW landmarks (..., 98, 2).

    Jaw: every second point; brows: their upper edge; lids: WFLW has points at a quarter and a half of the lid,
    Multi-PIE at a third, which is taken by linear interpolation; nose and mouth correspond one to one.
    """
    wflw: Float64 = np.asarray(points, np.float64)
    if wflw.ndim < 2 or wflw.shape[-2:] != (98, 2):
        raise ValueError(f"WFLW landmarks must be (..., 98, 2), got {wflw.shape}")
    taken = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60)]
    return np.concatenate(
        [wflw[..., taken, :], _six_of_eight(wflw[..., 60:68, :]), _six_of_eight(wflw[..., 68:76, :]),
         wflw[..., 76:96, :]],
        -2,
    )  # fmt: skip


def _six_of_eight(eye: Float64) -> Float64:
    """Corner, upper lid at 1/3 and 2/3, corner, lower lid at 1/3 and 2/3 of an eye's eight points."""
    quarters = eye[..., [1, 3, 5, 7], :]
    middles = eye[..., [2, 2, 6, 6], :]
    thirds = (2 * quarters + middles) / 3
    return np.stack(
        [eye[..., 0, :], thirds[..., 0, :], thirds[..., 1, :], eye[..., 4, :], thirds[..., 2, :], thirds[..., 3, :]], -2
    )


def _look_at(image: UInt8, box: Float64, window: _Window) -> tuple[NDArray[np.float32], Float64, float]:
    """BGR window (1, 3, size, size) float32 0..255 around the box, its top-left corner and its side in photo pixels."""
    box = np.asarray(box, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise ValueError(f"a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1, got {box.tolist()}")
    box_side = float((box[2:] - box[:2]).mean())
    side = box_side * window.factor
    corner = (box[:2] + box[2:]) / 2 + np.array([0, window.down * box_side]) - side / 2
    crop = resample_square(image, corner, side, window.size)
    return crop[..., ::-1].astype(np.float32).transpose(2, 0, 1)[None], corner, side


def resample_square(image: UInt8, corner: Float64, side: float, size: int) -> UInt8:
    """The photo's square from ``corner`` (x, y), ``side`` pixels wide, as (size, size, 3) uint8; black outside."""
    first = np.floor(corner).astype(int)
    last = np.ceil(corner + side).astype(int)
    padded = np.zeros((last[1] - first[1], last[0] - first[0], 3), np.uint8)
    low, high = np.maximum(first, 0), np.minimum(last, [image.shape[1], image.shape[0]])
    if (high > low).all():
        inside = image[low[1] : high[1], low[0] : high[0]]
        padded[low[1] - first[1] : high[1] - first[1], low[0] - first[0] : high[0] - first[0]] = inside
    x, y = corner - first
    box = (x, y, min(x + side, padded.shape[1]), min(y + side, padded.shape[0]))
    return np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box=box))

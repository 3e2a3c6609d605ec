"""The standard crop: 224 x 224 pixels around a face, placed by five points (Deng et al. 2019, Deep3DFaceRecon).

Photo and crop coordinates are continuous with pixel centres at +0.5, so a crop is a pure scale and offset per axis:
``crop = photo * scale - offset``. The official procedure truncates the resized photo's size and the crop's corner to
whole pixels; the transform returned here is the one that was really applied, truncations included, whereas the
official landmark transform leaves them out and can be off by a pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floating = NDArray[np.floating]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

CROP_SIZE = 224

_TARGET_SIZE = 102.0  # pixels of the crop per decimetre of the canonical face
CANONICAL_FIVE_POINTS_DM = np.array(
    [
        [-0.3114866, 0.2903608, 0.1337795],
        [0.3097989, 0.2897204, 0.1317953],
        [0.0032535, -0.0461793, 0.5524424],
        [-0.2521693, -0.3813391, 0.2240573],
        [0.2484662, -0.3812824, 0.2223577],
    ]
)


@dataclass(frozen=True)
class CropTransform:
    """Map between a photo and its crop: ``crop = photo * scale - offset`` per axis (x, y).

    Attributes:
        scale: (sx, sy) crop pixels per photo pixel.
        offset: (ox, oy) in crop pixels.
        photo_height, photo_width: size of the photo in pixels.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    photo_height: int
    photo_width: int

    def to_crop(self, xy: Floating) -> Float64:
        """Crop coordinates (..., 2) of photo coordinates (..., 2)."""
        return np.asarray(xy, np.float64) * self.scale - np.array(self.offset)

    def to_photo(self, xy: Floating) -> Float64:
        """Photo coordinates (..., 2) of crop coordinates (..., 2)."""
        return (np.asarray(xy, np.float64) + self.offset) / np.array(self.scale)


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """The standard crop ``image`` (224, 224, 3) uint8, black outside the photo, and the transform that made it."""

    image: UInt8
    transform: CropTransform


def five_points(landmarks68: Floating) -> Float64:
    """Five alignment points (..., 5, 2) of 68 Multi-PIE landmarks (..., 68, 2).

    Image-left eye, image-right eye (each the mean of its corners), nose tip, image-left and image-right mouth corner.

    Raises:
        ValueError: the second-to-last axis does not hold 68 points.
    """
    points = np.asarray(landmarks68, np.float64)
    if points.ndim < 2 or points.shape[-2:] != (68, 2):
        raise ValueError(f"landmarks must be (..., 68, 2), got {points.shape}")
    left_eye = points[..., [36, 39], :].mean(-2)
    right_eye = points[..., [42, 45], :].mean(-2)
    return np.stack([left_eye, right_eye, points[..., 30, :], points[..., 48, :], points[..., 54, :]], -2)


def align_face(image: UInt8, five_points: Floating) -> AlignedFace:
    """Cut the standard crop out of a photo.

    A scaled-orthographic camera is fitted to the five points; the photo is resized (bicubic) so that the canonical
    face has its standard size, and 224 x 224 pixels are taken around the face's origin. There is no in-plane rotation.

    Args:
        image: (H, W, 3) uint8 RGB.
        five_points: (5, 2) photo pixels, in the order of :func:`five_points`.

    Raises:
        ValueError: wrong shapes, points that are not finite or coincide, or a crop that misses the photo.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} of {image.dtype}")
    height0, width0 = image.shape[:2]
    scale, tx, ty = _fit_camera(np.asarray(five_points, np.float64), height0)
    width, height = int(width0 * scale), int(height0 * scale)
    if min(width, height) < 1:
        raise ValueError(f"five points spread over {102 / scale:.0f} px do not fit a {width0}x{height0} px photo")
    left = int(width / 2 - CROP_SIZE / 2 + (tx - width0 / 2) * scale)
    top = int(height / 2 - CROP_SIZE / 2 + (height0 / 2 - ty) * scale)
    transform = CropTransform((width / width0, height / height0), (float(left), float(top)), height0, width0)
    return AlignedFace(_resize_and_crop(image, (width, height), left, top), transform)


def _fit_camera(points: Float64, height: int) -> tuple[float, float, float]:
    """Scale and translation (x, y up) of the scaled-orthographic camera that takes the canonical points to these."""
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"five points must be (5, 2) and finite, got shape {points.shape}: {points.tolist()}")
    y_up = height - 1 - points[:, 1]
    canonical = np.concatenate([CANONICAL_FIVE_POINTS_DM, np.ones((5, 1))], 1)
    solution, *_ = np.linalg.lstsq(canonical, np.stack([points[:, 0], y_up], 1), rcond=None)
    size = np.linalg.norm(solution[:3], axis=0).mean()
    if size < 1e-3:
        raise ValueError(f"five points coincide: {points.tolist()}")
    return _TARGET_SIZE / float(size), float(solution[3, 0]), float(solution[3, 1])


def _resize_and_crop(image: UInt8, resized: tuple[int, int], left: int, top: int) -> UInt8:
    """The crop of the resized photo, computing only the pixels inside the crop."""
    height0, width0 = image.shape[:2]
    width, height = resized
    x0, x1 = max(left, 0), min(left + CROP_SIZE, width)
    y0, y1 = max(top, 0), min(top + CROP_SIZE, height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"the crop at ({left}, {top}) lies outside the photo resized to {width}x{height} px")
    box = (x0 * width0 / width, y0 * height0 / height, x1 * width0 / width, y1 * height0 / height)
    box = (box[0], box[1], min(box[2], width0), min(box[3], height0))
    window = Image.fromarray(image).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=box)
    crop = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
    crop[y0 - top : y1 - top, x0 - left : x1 - left] = np.asarray(window)
    return crop

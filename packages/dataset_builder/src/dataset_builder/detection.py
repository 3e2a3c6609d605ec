"""Finding faces: RetinaFace with a MobileNet 0.25 backbone (Deng et al. 2020), network from facexlib, weights an asset.

The anchors and the decoding of the network's output are our own vectorised form, so nothing is downloaded at run time
and no compiled operator is needed.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .assets import asset_path
from .photos import Photo, Rejected
from .torchvision_compat import ensure_torchvision, nms

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # stride, anchor sides in pixels
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
_MEAN_BGR = np.array([104, 117, 123], np.float32)
_OVERLAP = 0.4
_SMALL_FACE = 48.0  # pixels; below, the points of a face are coarse


@dataclass(frozen=True, eq=False)
class Detection:
    """One face in photo pixels.

    Attributes:
        box: (4,) x0, y0, x1, y1.
        score: 0..1.
        five_points: (5, 2) image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
    """

    box: Float64
    score: float
    five_points: Float64

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FaceDetector:
    """RetinaFace on a scaled-down photo, and on a larger one while no face is found or all of them are small.

    The first size suits portraits: it is fast, and the points are no worse than at 512 pixels. Small faces beside a
    large one may stay unseen.

    Args:
        weights: state dict of facexlib's ``RetinaFace('mobile0.25')``; None takes the asset.
        min_score: faces below this confidence are dropped.
        max_sides: longest sides, in pixels, to which the photo is scaled down, one after the other.

    Raises:
        ImportError: facexlib is not installed; the message names the extra.
        AssetMissing: no weights.
    """

    def __init__(
        self, weights: Path | None = None, *, min_score: float = 0.8, max_sides: tuple[int, ...] = (320, 640, 1280)
    ) -> None:
        self.min_score = min_score
        self.max_sides = max_sides
        self._network = _load_network(asset_path("retinaface_mobilenet0.25") if weights is None else weights)

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces of an image (H, W, 3) uint8 RGB, the largest first.

        Raises:
            ValueError: the image is not (H, W, 3) uint8.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} of {image.dtype}")
        found: list[Detection] = []
        for side in self.max_sides:
            scale = min(1.0, side / max(image.shape[:2]))
            found = self._detect_at(image, side) or found
            if scale == 1.0 or any(detection.area * scale**2 > _SMALL_FACE**2 for detection in found):
                break
        return sorted(found, key=lambda detection: -detection.area)

    def _detect_at(self, image: NDArray[np.uint8], max_side: int) -> list[Detection]:
        height, width = image.shape[:2]
        scaled = _scaled_to(image, max_side)
        boxes, scores, points = self._run(scaled)
        sure = scores > self.min_score
        boxes, scores, points = boxes[sure], scores[sure], points[sure]
        size = np.array([width, height], np.float64)
        return [
            Detection((boxes[i].reshape(2, 2) * size).ravel(), float(scores[i]), points[i] * size)
            for i in nms(boxes, scores, _OVERLAP)
        ]

    def _run(self, image: NDArray[np.uint8]) -> tuple[Float32, Float32, Float32]:
        """Boxes (N, 4), scores (N,) and points (N, 5, 2) of all anchors, as fractions of the image's size."""
        pixels = np.ascontiguousarray((image[..., ::-1] - _MEAN_BGR).transpose(2, 0, 1))
        with torch.inference_mode():
            offsets, probabilities, point_offsets = self._network(torch.from_numpy(pixels)[None])
        anchors = anchor_boxes(*image.shape[:2])
        centres, sides = anchors[:, :2], anchors[:, 2:]
        box_offsets = offsets[0].numpy()
        middle = centres + box_offsets[:, :2] * _CENTRE_VARIANCE * sides
        half = sides * np.exp(box_offsets[:, 2:] * _SIZE_VARIANCE) / 2
        points = centres[:, None] + point_offsets[0].numpy().reshape(-1, 5, 2) * _CENTRE_VARIANCE * sides[:, None]
        return np.concatenate([middle - half, middle + half], 1), probabilities[0, :, 1].numpy(), points


def detect_faces(image: NDArray[np.uint8]) -> list[Detection]:
    """Faces of an image (H, W, 3) uint8 RGB, the largest first, by a detector shared within the process."""
    return _shared_detector().detect(image)


def largest_face(photo: Photo, detector: FaceDetector) -> Detection | Rejected:
    """The largest face of a photo, or the photo rejected with code ``no_face``."""
    faces = detector.detect(photo.image)
    if not faces:
        return Rejected(photo.name, photo.path, "no_face", f"{photo.path.name}: no face found")
    return faces[0]


@lru_cache(maxsize=16)
def anchor_boxes(height: int, width: int) -> Float32:
    """RetinaFace anchors (N, 4) float32 of an image: centre x, centre y, width, height as fractions of its size."""
    size = np.array([width, height], np.float64)
    blocks = []
    for stride, sides in _ANCHORS:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
        centres = (np.stack([columns, rows], -1) + 0.5) * stride / size
        shapes = np.array(sides, np.float64)[:, None] / size
        grid = np.broadcast_to(centres[:, :, None], (*centres.shape[:2], len(sides), 2))
        blocks.append(np.concatenate([grid, np.broadcast_to(shapes, grid.shape)], -1).reshape(-1, 4))
    return np.concatenate(blocks).astype(np.float32)


@lru_cache(maxsize=1)
def _shared_detector() -> FaceDetector:
    return FaceDetector()


def _scaled_to(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _load_network(weights: Path) -> torch.nn.Module:
    ensure_torchvision()
    try:
        from facexlib.detection.retinaface import RetinaFace
    except ImportError as error:
        raise ImportError("face detection needs facexlib: pip install 'neo3df-dataset-builder[photos]'") from error
    network = RetinaFace(network_name="mobile0.25", device="cpu")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()}, strict=True)
    return network.eval()

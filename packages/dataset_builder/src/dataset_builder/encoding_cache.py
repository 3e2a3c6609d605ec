"""Which embeddings are known already: keys by encoder and image, and encoding of what is missing only.

Nothing is stored here; whoever keeps embeddings keeps them under these keys.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .encoders import FaceEncoder


@dataclass(frozen=True, eq=False)
class Encodings:
    """Embeddings of N faces.

    Attributes:
        keys: N keys, see :func:`encoding_key`.
        embeddings: (N, E) float32.
        computed: (N,) bool, which of them were not known before.
    """

    keys: tuple[str, ...]
    embeddings: NDArray[np.float32]
    computed: NDArray[np.bool_]


def image_sha256(image: NDArray[np.uint8], five_points: NDArray[np.floating] | None = None) -> str:
    """Hex digest of an image's shape and pixels, and of the five points (as float32) if they are given."""
    digest = hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
    if five_points is not None:
        digest.update(np.asarray(five_points, np.float32).tobytes())
    return digest.hexdigest()


def encoding_key(encoder: FaceEncoder, image_digest: str) -> str:
    """Key of an embedding, hex: it changes with the encoder's name, weights or preprocessing, and with the image.

    Args:
        encoder: the encoder.
        image_digest: digest of what is encoded, :func:`image_sha256` of the crop; the photo's own digest would not
            tell one crop of it from another.
    """
    return _key(_encoder_digest(encoder), image_digest)


def encode_missing(
    encoder: FaceEncoder,
    images: NDArray[np.uint8],
    five_points: NDArray[np.floating],
    known: Mapping[str, NDArray[np.float32]],
) -> Encodings:
    """Embeddings of crops (N, 224, 224, 3) uint8 with five points (N, 5, 2): looked up by key, else computed.

    A crop that comes twice is computed once.

    Raises:
        ValueError: wrong shapes, or a known embedding has another length than the encoder's.
    """
    if len(images) != len(five_points):
        raise ValueError(f"{len(images)} images but {len(five_points)} rows of five points")
    of_encoder = _encoder_digest(encoder)
    keys = tuple(_key(of_encoder, image_sha256(*pair)) for pair in zip(images, five_points, strict=True))
    missing = _first_rows(keys, known)
    fresh = dict(zip((keys[i] for i in missing), encoder.encode(images[missing], five_points[missing]), strict=True))
    embeddings = np.empty((len(keys), encoder.dim), np.float32)
    for row, key in enumerate(keys):
        value = fresh[key] if key in fresh else known[key]
        if value.shape != (encoder.dim,):
            raise ValueError(f"known embedding {key[:12]} has shape {value.shape}, {encoder.name} gives {encoder.dim}")
        embeddings[row] = value
    return Encodings(keys, embeddings, np.array([key in fresh for key in keys], bool))


def _first_rows(keys: Sequence[str], known: Mapping[str, NDArray[np.float32]]) -> list[int]:
    first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
    return sorted(first.values())


def _encoder_digest(encoder: FaceEncoder) -> str:
    facts = f"{encoder.name} {encoder.weights_sha256} {encoder.preprocessing}"
    return hashlib.sha256(facts.encode()).hexdigest()


def _key(encoder_digest: str, image_digest: str) -> str:
    return hashlib.sha256(f"{encoder_digest} {image_digest}".encode()).hexdigest()

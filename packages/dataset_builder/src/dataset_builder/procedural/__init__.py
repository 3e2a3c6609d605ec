"""The built-in procedural face, a morphable model made of formulas, and synthetic photographs of it."""

from .appearance import Appearance, Hair, sample_appearance
from .cache import cached_procedural_face
from .model import build_procedural_face, front_valid, triangle_labels, valid_identity
from .photo import SyntheticPhoto, make_photos, render_photo
from .studio import Studio

__all__ = [
    "Appearance",
    "Hair",
    "Studio",
    "SyntheticPhoto",
    "build_procedural_face",
    "cached_procedural_face",
    "front_valid",
    "make_photos",
    "render_photo",
    "sample_appearance",
    "triangle_labels",
    "valid_identity",
]

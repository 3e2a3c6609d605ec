"""The 30 controllers as a table: which measure of which points each one is. No geometry happens here.

Regions, order and rules follow NEO-3DF (Yan et al., ACCV 2022). Three readings differ from its published code: paired
measures are taken on both sides and averaged, points of a part stay inside that part, and positions of a part (canthus
heights, nose tip) are relative to the part's own bounding box, because a part's latent does not know where on the face
it sits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from editing.parts import REGIONS

Rule = Literal["distance", "delta_y", "across_x", "across", "sag", "y", "z", "box_width", "box_height"]


@dataclass(frozen=True)
class Controller:
    """One named measurement of a face region, in millimetres.

    Attributes:
        region: one of ``REGIONS``.
        name: snake_case name, unique inside the region.
        title: short text for people.
        definition: what is measured, in one sentence.
        rule: how the points make a number (see ``editing.measurements``).
        points: names of the points the rule reads, in its order; empty for bounding-box rules.
        unit: unit of the measurement.
    """

    region: str
    name: str
    title: str
    definition: str
    rule: Rule
    points: tuple[str, ...] = ()
    unit: str = "mm"

    @property
    def key(self) -> str:
        """Full name, ``region.name``, as the editor takes it."""
        return f"{self.region}.{self.name}"


CONTROLLERS: Final[tuple[Controller, ...]] = (
    Controller(
        "eyebrows", "front_thickness", "Front thickness",
        "Distance between the upper and lower outline a tenth of the brow's width from its medial tip.",
        "distance", ("brow_front_top", "brow_front_bottom"),
    ),
    Controller(
        "eyebrows", "tail_thickness", "Tail thickness",
        "Distance between the upper and lower outline a tenth of the brow's width from its lateral tip.",
        "distance", ("brow_tail_top", "brow_tail_bottom"),
    ),
    Controller(
        "eyebrows", "length", "Length",
        "Distance between the brow's lateral and medial tips.",
        "distance", ("brow_lateral_tip", "brow_medial_tip"),
    ),
    Controller(
        "eyebrows", "curve_strength", "Curve strength",
        "Distance from the brow's middle to the midpoint of its two tips.",
        "sag", ("brow_lateral_tip", "brow_medial_tip", "brow_middle"),
    ),
    Controller(
        "eyes", "pupils_distance", "Pupils distance",
        "Horizontal distance between the two eye centres.",
        "across_x", ("eye_centre",),
    ),
    Controller(
        "eyes", "eye_height", "Eye height",
        "Vertical distance between the upper and lower lid edge at the eye's centre.",
        "delta_y", ("eye_top", "eye_bottom"),
    ),
    Controller(
        "eyes", "canthus_distance", "Canthus distance",
        "Distance between the medial and lateral canthus of an eye.",
        "distance", ("medial_canthus", "lateral_canthus"),
    ),
    Controller(
        "eyes", "medial_canthus_height", "Medial canthus up/down",
        "Height of the medial canthi above the centre of the eyes' bounding box.",
        "y", ("medial_canthus",),
    ),
    Controller(
        "eyes", "lateral_canthus_height", "Lateral canthus up/down",
        "Height of the lateral canthi above the centre of the eyes' bounding box.",
        "y", ("lateral_canthus",),
    ),
    Controller(
        "nose", "tip_height", "Tip up/down",
        "Height of the nose tip above the centre of the nose's bounding box.",
        "y", ("nose_tip",),
    ),
    Controller(
        "nose", "tip_depth", "Tip in/out",
        "How far the nose tip stands in front of the centre of the nose's bounding box.",
        "z", ("nose_tip",),
    ),
    Controller("nose", "height", "Height", "Height of the nose's bounding box.", "box_height"),
    Controller("nose", "width", "Width", "Width of the nose's bounding box.", "box_width"),
    Controller(
        "nose", "tip_width", "Tip width",
        "Horizontal distance between the two sides of the tip.",
        "across_x", ("nose_tip_side",),
    ),
    Controller(
        "nose", "bridge_width", "Bridge width",
        "Horizontal distance between the two sides of the bridge.",
        "across_x", ("nose_bridge_side",),
    ),
    Controller(
        "upper_lip", "bow_width", "Cupid's bow width",
        "Horizontal distance between the two peaks of Cupid's bow.",
        "across_x", ("bow_peak",),
    ),
    Controller(
        "upper_lip", "height", "Upper lip height",
        "Vertical distance between the upper lip's outlines on the midline.",
        "delta_y", ("upper_lip_top", "upper_lip_bottom"),
    ),
    Controller(
        "upper_lip", "width", "Upper lip width",
        "Horizontal distance between the corners of the upper lip.",
        "across_x", ("upper_lip_corner",),
    ),
    Controller(
        "upper_lip", "end_height", "Upper lip end height",
        "Vertical distance between the upper lip's outlines at two thirds of its half-width.",
        "delta_y", ("upper_lip_end_top", "upper_lip_end_bottom"),
    ),
    Controller(
        "lower_lip", "height", "Lower lip height",
        "Distance between the lower lip's outlines on the midline.",
        "distance", ("lower_lip_top", "lower_lip_bottom"),
    ),
    Controller(
        "lower_lip", "width", "Lower lip width",
        "Distance between the corners of the lower lip.",
        "across", ("lower_lip_corner",),
    ),
    Controller(
        "lower_lip", "end_height", "Lower lip end height",
        "Distance between the lower lip's outlines at three quarters of its half-width.",
        "distance", ("lower_lip_end_top", "lower_lip_end_bottom"),
    ),
    Controller("rest", "maximum_facial_width", "Maximum facial width", "Width of the whole face.", "box_width"),
    Controller(
        "rest", "mandibular_width", "Mandibular width",
        "Horizontal distance between the jaw angles.",
        "across_x", ("jaw_angle",),
    ),
    Controller("rest", "upper_facial_depth", "Upper facial depth", "Depth of the glabella (z).", "z", ("glabella",)),
    Controller(
        "rest", "middle_facial_depth", "Middle facial depth",
        "Depth of the subnasale (z).",
        "z", ("subnasale",),
    ),
    Controller("rest", "lower_facial_depth", "Lower facial depth", "Depth of the chin (z).", "z", ("chin",)),
    Controller(
        "rest", "facial_height", "Facial height",
        "Vertical distance from the glabella to the chin.",
        "delta_y", ("glabella", "chin"),
    ),
    Controller(
        "rest", "upper_facial_height", "Upper facial height",
        "Vertical distance from the glabella to where the lips meet.",
        "delta_y", ("glabella", "stomion"),
    ),
    Controller(
        "rest", "lower_facial_height", "Lower facial height",
        "Vertical distance from the subnasale to the chin.",
        "delta_y", ("subnasale", "chin"),
    ),
)  # fmt: skip

CONTROLLERS_BY_REGION: Final[dict[str, tuple[Controller, ...]]] = {
    region: tuple(c for c in CONTROLLERS if c.region == region) for region in REGIONS
}


def controller_names(region: str) -> tuple[str, ...]:
    """Names of a region's controllers in column order of ``measure``; ValueError for an unknown region."""
    if region not in CONTROLLERS_BY_REGION:
        raise ValueError(f"unknown region {region!r}: use one of {', '.join(REGIONS)}")
    return tuple(c.name for c in CONTROLLERS_BY_REGION[region])

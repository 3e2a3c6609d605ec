"""What a face IS to the editor: latents, offsets and controls, never a mesh; and its JSON form."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing.parts import PARTS, REGIONS

Array = NDArray[np.float64]
FORMAT: Final = "neo3df-face"
VERSION: Final = 1
FIELDS: Final = ("format", "version", "units", "latents", "offsets", "controls")


@dataclass(frozen=True, eq=False)
class FaceState:
    """An editable face. Arrays are float64 copies and read-only. Two states are equal when all their numbers are.

    Attributes:
        latents: region -> ``(D,)`` before any edit.
        controls: ``{"nose.width": sigma, ...}`` standard deviations; only those that are not 0.
        offsets: ``(5, 2)`` mm, y and z of the box centre of each part in order of ``PARTS`` before any edit of the
            rest, which carries the parts along; None lets the model place the parts.
    """

    latents: Mapping[str, Array]
    controls: Mapping[str, float]
    offsets: Array | None = None

    @classmethod
    def create(
        cls,
        latents: Mapping[str, ArrayLike],
        offsets: ArrayLike | None = None,
        controls: Mapping[str, float] | None = None,
    ) -> FaceState:
        """A checked state; ValueError for unknown regions, wrong shapes or values that are not finite."""
        unknown = sorted(set(latents) - set(REGIONS))
        if unknown:
            raise ValueError(f"unknown regions {unknown} in latents: use {', '.join(REGIONS)}")
        kept = {region: _vector(latents[region], f"latents of {region}") for region in REGIONS if region in latents}
        for key, sigma in (controls or {}).items():
            if key.partition(".")[0] not in kept:
                raise ValueError(f"control {key!r} belongs to no region of this face: {', '.join(kept)}")
            if not isinstance(sigma, Real) or not np.isfinite(float(sigma)):
                raise ValueError(f"control {key} is {sigma!r}: it must be a finite number of standard deviations")
        moved = {key: float(sigma) for key, sigma in sorted((controls or {}).items()) if sigma != 0}
        return cls(kept, moved, None if offsets is None else _offsets(offsets))

    def with_controls(self, controls: Mapping[str, float]) -> FaceState:
        """The same face with other controls."""
        return FaceState.create(self.latents, self.offsets, controls)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaceState):
            return NotImplemented
        return (
            self.controls == other.controls
            and self.latents.keys() == other.latents.keys()
            and all(np.array_equal(z, other.latents[region]) for region, z in self.latents.items())
            and _same(self.offsets, other.offsets)
        )

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> str:
        """JSON text; numbers survive the round trip exactly."""
        offsets = None if self.offsets is None else dict(zip(PARTS, self.offsets.tolist(), strict=True))
        content = {
            "format": FORMAT,
            "version": VERSION,
            "units": {"controls": "standard deviations", "offsets": "mm (y, z of the part's box centre)"},
            "latents": {region: z.tolist() for region, z in self.latents.items()},
            "offsets": offsets,
            "controls": dict(self.controls),
        }
        return json.dumps(content, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, beside: Collection[str] = ()) -> FaceState:
        """The face of ``to_json``.

        Args:
            text: JSON text.
            beside: names of further fields that a program keeps in the same file; they are passed over.

        Raises:
            ValueError: other text, another format or version, fields that are missing or unknown, values as in
                ``create``.
        """
        try:
            content: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a face file: {error}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"not a face file: its format must be {FORMAT!r}")
        if content.get("version") != VERSION:
            raise ValueError(f"face file has version {content.get('version')}: this program reads version {VERSION}")
        _check_fields(content, beside)
        offsets = content["offsets"]
        if offsets is not None:
            if set(offsets) != set(PARTS):
                raise ValueError(f"face file has offsets of {sorted(offsets)}: expected {', '.join(PARTS)}")
            offsets = [offsets[part] for part in PARTS]
        return cls.create(content["latents"], offsets, content["controls"])


def _check_fields(content: dict[str, Any], beside: Collection[str]) -> None:
    missing = [field for field in ("latents", "offsets", "controls") if field not in content]
    if missing:
        raise ValueError(f"face file lacks {', '.join(missing)}")
    unknown = sorted(set(content) - {*FIELDS, *beside})
    if unknown:
        close = difflib.get_close_matches(unknown[0], FIELDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it may have {', '.join((*FIELDS, *beside))}"
        raise ValueError(f"face file has an unknown field {unknown[0]!r}: {hint}")
    for field in ("latents", "offsets", "controls"):
        if not isinstance(content[field], dict) and (field, content[field]) != ("offsets", None):
            raise ValueError(f"{field} of a face file must be an object with a value per name")


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def _vector(values: ArrayLike, what: str) -> Array:
    array = _frozen(values, what)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what} have shape {array.shape}: expected (D,)")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} are not finite")
    return array


def _offsets(values: ArrayLike) -> Array:
    array = _frozen(values, "offsets")
    if array.shape != (len(PARTS), 2):
        raise ValueError(f"offsets have shape {array.shape}: expected ({len(PARTS)}, 2), y and z in mm per part")
    if not np.isfinite(array).all():
        raise ValueError("offsets are not finite")
    return array


def _frozen(values: ArrayLike, what: str) -> Array:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} are not an array of numbers") from None
    array.setflags(write=False)
    return array

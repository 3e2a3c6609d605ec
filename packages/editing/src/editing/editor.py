"""Editing one face by named controls, with undo; the mesh is always rebuilt from the state, never edited itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from editing._exact import reach
from editing._mixing import mixed, resolved_offsets
from editing._rebuild import Rebuilder
from editing.controllers import ControllerMap
from editing.decoder import FaceDecoder
from editing.landmarks import MeasurementLandmarks
from editing.measurements import measure, measurement_values
from editing.parts import PARTS, REGIONS
from editing.state import FaceState

Array = NDArray[np.floating]

LIMIT_SIGMA: Final = 6.0
"""Controls beyond this many standard deviations are refused: a linear map means nothing there."""
RANDOM_LIMIT_SIGMA: Final = 3.0
LIMIT_MM: Final = 30.0
"""Parts moved farther than this are refused."""


class FaceEditor:
    """Named edits of one face.

    The mesh is a function of the state alone: controls applied to latents, decoded, blended once. Edits of different
    things therefore commute, of the same thing the last one stands, and undo gives back the very same vertices. An edit
    decodes the regions whose latents changed and no other; one of the rest carries the parts along by what the decoder
    says they move.
    """

    def __init__(
        self,
        state: FaceState,
        decoder: FaceDecoder,
        controllers: ControllerMap,
        landmarks: MeasurementLandmarks | None = None,
    ) -> None:
        """Start from a face.

        Args:
            state: the face; its controls must exist in ``controllers``, its latents have the decoder's sizes.
            decoder: latents to vertices.
            controllers: the fitted map.
            landmarks: measuring points of the topology; needed by ``measurements`` and ``set_exact`` only.

        Raises:
            ValueError: a control that the map does not know, latents the decoder cannot decode.
        """
        self._decoder, self._rebuilder = decoder, Rebuilder(decoder)
        self.controllers, self._landmarks = controllers, landmarks
        self._check_face(state)
        self._history, self._at = [state], 0
        self._loaded = state

    @property
    def state(self) -> FaceState:
        """The face as it is now."""
        return self._history[self._at]

    @property
    def loaded(self) -> FaceState:
        """The face the editor was started with."""
        return self._loaded

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of all controls of this face."""
        return tuple(f"{r}.{name}" for r, fitted in self.controllers.regions.items() for name in fitted.names)

    @property
    def can_measure(self) -> bool:
        """Whether ``measurements`` and ``set_exact`` work: the editor was given landmarks."""
        return self._landmarks is not None

    def get(self, name: str) -> float:
        """The present value of a control, standard deviations."""
        self._check(name, 0.0)
        return self.state.controls.get(name, 0.0)

    def set(self, name: str, sigma: float) -> None:
        """Set a control (``"nose.width"``) to a number of standard deviations; ValueError beyond ``LIMIT_SIGMA``."""
        self._check(name, sigma)
        self._push(self.state.with_controls({**self.state.controls, name: sigma}))

    def set_exact(self, name: str, millimetres: float, tolerance_mm: float = 0.05) -> float:
        """Set a control so that its own measurement of the finished face has a value in mm.

        The other controls keep their settings. The first guess is the linear one; secant steps on the rebuilt face take
        up what the decoder and the blending bend.

        Args:
            name: full name of a control.
            millimetres: the wanted measurement, as ``measurements`` gives it.
            tolerance_mm: how near is near enough.

        Returns:
            The control that was set, standard deviations.

        Raises:
            ValueError: no landmarks, an unknown control, or a value this face cannot reach within ``LIMIT_SIGMA``; the
                state is then unchanged.
        """
        self._check(name, 0.0)
        region, _, short = name.partition(".")
        slope = float(self.controllers.region(region).sigma[self.controllers.position(region, short)])

        def measured(sigma: float) -> float:
            return self._measurements(self.state.with_controls({**self.state.controls, name: sigma}))[name]

        sigma, value = reach(measured, millimetres, self.get(name), slope, LIMIT_SIGMA, tolerance_mm)
        if not abs(value - millimetres) <= tolerance_mm:
            raise ValueError(
                f"{name} cannot reach {millimetres:g} mm on this face within {LIMIT_SIGMA:g} standard deviations: "
                f"got {value:.2f} mm at {sigma:.2f}"
            )
        self.set(name, sigma)
        return sigma

    def measurements(self) -> dict[str, float]:
        """The 30 measurements of the finished face by full name, mm; ValueError without landmarks."""
        return self._measurements(self.state)

    def undo(self) -> bool:
        """Take back the last edit; False if there is none."""
        possible = self._at > 0
        self._at -= possible
        return possible

    def redo(self) -> bool:
        """Do again what was taken back; False if there is nothing."""
        possible = self._at + 1 < len(self._history)
        self._at += possible
        return possible

    def reset(self, region: str | None = None) -> None:
        """Set all controls, or those of one region, to 0."""
        if region is not None:
            self.controllers.region(region)
        kept = {k: v for k, v in self.state.controls.items() if region and not k.startswith(f"{region}.")}
        self._push(self.state.with_controls(kept))

    def restore(self, region: str | None = None) -> None:
        """Give all of the face, or one region, the latents, controls and offset it was loaded with."""
        self._take(self._loaded, 1.0, None if region is None else [region])

    def copy_part(self, other: FaceState, part: str) -> None:
        """Give a part, or ``"rest"``, the latent, controls and offset it has on another face of the same model.

        A part is put where it stands relative to the place that its own rest asks for; a copied rest carries the parts
        along. Copies of different regions may come in any order; copies of all six give the other face.
        """
        self._take(other, 1.0, [part])

    def blend_with(self, other: FaceState, weight: float, regions: Iterable[str] | None = None) -> None:
        """Mix latents, controls and offsets with those of another face of the same model.

        Args:
            other: the other face.
            weight: 0 leaves this face as it is, 1 makes it the other one, exactly.
            regions: the regions to mix, all by default.

        Raises:
            ValueError: a weight outside 0 to 1, unknown regions, or a face that does not fit the decoder or the map.
        """
        self._take(other, weight, regions)

    def moved(self, part: str) -> tuple[float, float]:
        """How far up and forward of its place on the loaded face a part stands now, mm."""
        row = self._row(part)
        dy, dz = (self._offsets_of(self.state) - self._offsets_of(self._loaded))[row]
        return float(dy), float(dz)

    def move_part(self, part: str, dy: float, dz: float) -> None:
        """Put a part ``dy`` mm up and ``dz`` mm forward of its place on the loaded face; 0, 0 puts it back.

        ValueError for an unknown part or a move beyond ``LIMIT_MM``.
        """
        row = self._row(part)
        for axis, distance in (("up", dy), ("forward", dz)):
            if not abs(distance) <= LIMIT_MM:
                raise ValueError(f"{part} moved {distance} mm {axis}: use {-LIMIT_MM:g} to {LIMIT_MM:g}")
        if (dy, dz) == self.moved(part):
            return
        offsets = self._offsets_of(self.state).copy()
        offsets[row] = self._offsets_of(self._loaded)[row] + (dy, dz)
        self._push(FaceState.create(self.state.latents, offsets, self.state.controls))

    def randomise(
        self, seed: int, strength: float = 1.0, symmetric: bool = True, regions: Iterable[str] | None = None
    ) -> None:
        """Draw a random face, or some of its regions; the same seed gives the same region whatever others are drawn.

        Symmetric: every control is drawn from a normal distribution of ``strength`` standard deviations about 0 while
        the latents stay: the face keeps the symmetry it has, and the draw can be seen and changed on the controls.
        Otherwise the latents are drawn, ``mean + strength * std * noise`` over the training faces with all their
        asymmetry; controls go to 0 and parts to where the decoder places them. Draws are clipped at 3 deviations.

        Args:
            seed: any integer.
            strength: 0 is the loaded latents with controls at 0 (symmetric) or the mean face.
            symmetric: draw controls, not latents.
            regions: the regions to draw, all by default.

        Raises:
            ValueError: a negative strength or unknown regions.
        """
        if not (strength >= 0 and np.isfinite(strength)):
            raise ValueError(f"strength is {strength}: it must be a number of standard deviations, 0 or more")
        chosen, rng = _chosen(regions), np.random.default_rng(seed)
        if symmetric:
            drawn = dict(zip(self.names, _noise(rng, len(self.names), strength).tolist(), strict=True))
            kept = {k: v for k, v in self.state.controls.items() if k.partition(".")[0] not in chosen}
            new = {k: v for k, v in drawn.items() if k.partition(".")[0] in chosen}
            self._push(self.state.with_controls({**kept, **new}))
            return
        mean, std = self._decoder.latent_mean, self._decoder.latent_std
        latents = {r: mean[r] + std[r] * _noise(rng, len(mean[r]), strength) for r in REGIONS}
        self._take(FaceState.create(latents), 1.0, chosen)

    def vertices(self, state: FaceState | None = None) -> Array:
        """The finished face ``(V, 3)`` in mm, read-only: of the present state, or of another one of this model."""
        if state is None:
            return self._built(self.state)
        self._check_face(state)
        return self._built(state)

    def build(self, controls: Mapping[str, float]) -> Array:
        """The face ``(V, 3)`` in mm, read-only, that other controls would give; the state stays as it is."""
        return self.vertices(self.state.with_controls(controls))

    def to_json(self) -> str:
        """The present state as JSON text."""
        return self.state.to_json()

    @classmethod
    def from_json(
        cls,
        text: str,
        decoder: FaceDecoder,
        controllers: ControllerMap,
        landmarks: MeasurementLandmarks | None = None,
    ) -> FaceEditor:
        """An editor of the face in ``to_json`` text; arguments and errors as in the constructor and ``FaceState``."""
        return cls(FaceState.from_json(text), decoder, controllers, landmarks)

    def _push(self, state: FaceState) -> None:
        if state != self.state:
            self._history[self._at + 1 :] = [state]
            self._at += 1

    def _take(self, other: FaceState, weight: float, regions: Iterable[str] | None) -> None:
        chosen = _chosen(regions)
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is {weight}: use 0 (this face) to 1 (the other)")
        self._check_face(other)
        self._push(mixed(self.state, other, dict.fromkeys(chosen, weight), self._rebuilder.place))

    def _built(self, state: FaceState) -> Array:
        latents = self.controllers.apply(state.latents, self._by_region(state.controls))
        return self._rebuilder.face(latents, resolved_offsets(state, latents["rest"], self._rebuilder.place))

    def _offsets_of(self, state: FaceState) -> NDArray[np.float64]:
        """Where a state's parts would stand on the present rest."""
        return resolved_offsets(state, self.state.latents["rest"], self._rebuilder.place)

    def _check(self, key: str, sigma: float) -> None:
        region, _, name = key.partition(".")
        if region not in self.controllers.regions or name not in self.controllers.regions[region].names:
            known = [f"{r}.{n}" for r, fitted in self.controllers.regions.items() for n in fitted.names]
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else f"it must be one of {', '.join(known)}"
            raise ValueError(f"unknown control {key!r}: {hint}")
        if not abs(sigma) <= LIMIT_SIGMA:
            raise ValueError(f"{key} is {sigma} standard deviations: use {-LIMIT_SIGMA:g} to {LIMIT_SIGMA:g}")

    def _check_face(self, state: FaceState) -> None:
        sizes = {region: len(mean) for region, mean in self._decoder.latent_mean.items()}
        for region, size in sizes.items():
            if region not in state.latents:
                raise ValueError(f"the face has no latents of {region}: its model needs {', '.join(sizes)}")
            if len(state.latents[region]) != size:
                found = len(state.latents[region])
                raise ValueError(f"latents of {region} have length {found}, the model's have {size}: use its own faces")
        for key, sigma in state.controls.items():
            self._check(key, sigma)

    def _row(self, part: str) -> int:
        if part not in PARTS:
            raise ValueError(f"unknown part {part!r}: use {', '.join(PARTS)}")
        return PARTS.index(part)

    def _by_region(self, controls: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        edited = {key.partition(".")[0] for key in controls}
        by_region = {r: np.zeros(len(fitted.names)) for r, fitted in self.controllers.regions.items() if r in edited}
        for key, sigma in controls.items():
            region, _, name = key.partition(".")
            by_region[region][self.controllers.position(region, name)] = sigma
        return by_region

    def _measurements(self, state: FaceState) -> dict[str, float]:
        if self._landmarks is None:
            raise ValueError("this editor cannot measure: give it landmarks=MeasurementLandmarks.from_template(...)")
        return measurement_values(measure(self.vertices(state), self._landmarks))


def _chosen(regions: Iterable[str] | None) -> tuple[str, ...]:
    chosen = REGIONS if regions is None else tuple(regions)
    unknown = [region for region in chosen if region not in REGIONS]
    if unknown:
        raise ValueError(f"unknown region {unknown[0]!r}: use {', '.join(REGIONS)}")
    return chosen


def _noise(rng: np.random.Generator, size: int, strength: float) -> NDArray[np.float64]:
    return np.clip(strength * rng.standard_normal(size), -RANDOM_LIMIT_SIGMA, RANDOM_LIMIT_SIGMA)

"""Editing one face by named controls, with undo; the mesh is always rebuilt from the state, never edited itself."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from editing.controllers import ControllerMap
from editing.landmarks import MeasurementLandmarks
from editing.measurements import measure, measurement_values
from editing.state import FaceState

Array = NDArray[np.floating]
Decode = Callable[[dict[str, NDArray[np.float64]], NDArray[np.float64] | None], tuple[Array, Array]]
"""latents ``{region: (D,)}``, offsets ``(5, 2)`` or None -> composed (parts in place), rest: ``(V, 3)`` mm."""
Blend = Callable[[Array, Array], Array]
"""composed ``(V, 3)``, rest ``(V, 3)`` -> the face ``(V, 3)`` with natural seams, mm."""

LIMIT_SIGMA = 6.0
"""Controls beyond this many standard deviations are refused: a linear map means nothing there."""
RANDOM_LIMIT_SIGMA = 3.0


class FaceEditor:
    """Named edits of one face.

    The mesh is a function of the state alone: controls applied to latents, decoded, blended once. Edits therefore
    commute and undo gives back the very same vertices.
    """

    def __init__(
        self,
        state: FaceState,
        decode: Decode,
        blend: Blend,
        controllers: ControllerMap,
        landmarks: MeasurementLandmarks | None = None,
    ) -> None:
        """Start from a face.

        Args:
            state: the face; its controls must exist in ``controllers``.
            decode: latents and offsets to composed parts and rest, as in ``Decode``.
            blend: composed and rest to the face, as in ``Blend``.
            controllers: the fitted map.
            landmarks: measuring points of the topology; needed by ``measurements`` and ``set_exact`` only.

        Raises:
            ValueError: a control of the state that the map does not know.
        """
        self._decode, self._blend = decode, blend
        self.controllers, self._landmarks = controllers, landmarks
        for key, sigma in state.controls.items():
            self._check(key, sigma)
        self._history, self._at = [state], 0
        self._built: tuple[FaceState, Array] | None = None

    @property
    def state(self) -> FaceState:
        """The face as it is now."""
        return self._history[self._at]

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of all controls of this face."""
        regions = self.controllers.regions
        return tuple(f"{r}.{name}" for r in self.state.latents if r in regions for name in regions[r].names)

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
        sigma, value = self.get(name), self._measured(self.state, name)
        slope = float(self.controllers.region(region).sigma[self.controllers.position(region, short)])
        for _ in range(12):
            if abs(value - millimetres) <= tolerance_mm:
                self.set(name, sigma)
                return sigma
            wanted = sigma + (millimetres - value) / slope
            if not abs(wanted) <= LIMIT_SIGMA:
                break
            trial = self._measured(self.state.with_controls({**self.state.controls, name: wanted}), name)
            measured_slope = (trial - value) / (wanted - sigma)
            slope = measured_slope if abs(measured_slope) > 1e-3 * abs(slope) else slope
            sigma, value = wanted, trial
        raise ValueError(
            f"{name} cannot reach {millimetres:g} mm on this face within {LIMIT_SIGMA:g} standard deviations: "
            f"got {value:.2f} mm at {sigma:.2f}"
        )

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

    def randomise(self, seed: int, strength: float = 1.0) -> None:
        """Draw all controls from a normal distribution of this many standard deviations, clipped at 3.

        The same seed gives the same controls. ValueError for a negative strength.
        """
        if not (strength >= 0 and np.isfinite(strength)):
            raise ValueError(f"strength is {strength}: it must be a number of standard deviations, 0 or more")
        drawn = strength * np.random.default_rng(seed).standard_normal(len(self.names))
        drawn = np.clip(drawn, -RANDOM_LIMIT_SIGMA, RANDOM_LIMIT_SIGMA)
        self._push(self.state.with_controls(dict(zip(self.names, drawn.tolist(), strict=True))))

    def vertices(self) -> Array:
        """The finished face ``(V, 3)`` in mm, read-only."""
        if self._built is None or self._built[0] is not self.state:
            built = self.build(self.state.controls)
            built.setflags(write=False)
            self._built = (self.state, built)
        return self._built[1]

    def build(self, controls: Mapping[str, float]) -> Array:
        """The face ``(V, 3)`` in mm that other controls would give; the state stays as it is."""
        for key, sigma in controls.items():
            self._check(key, sigma)
        latents = self.controllers.apply(self.state.latents, self._by_region(controls))
        composed, rest = self._decode(latents, self.state.offsets)
        face = np.array(self._blend(composed, rest))
        if not np.isfinite(face).all():
            raise ValueError(f"the face has coordinates that are not finite with controls {dict(controls)}")
        return face

    def to_json(self) -> str:
        """The present state as JSON text."""
        return self.state.to_json()

    @classmethod
    def from_json(
        cls,
        text: str,
        decode: Decode,
        blend: Blend,
        controllers: ControllerMap,
        landmarks: MeasurementLandmarks | None = None,
    ) -> FaceEditor:
        """An editor of the face in ``to_json`` text; arguments and errors as in the constructor and ``FaceState``."""
        return cls(FaceState.from_json(text), decode, blend, controllers, landmarks)

    def _push(self, state: FaceState) -> None:
        if state.controls != self.state.controls:
            self._history[self._at + 1 :] = [state]
            self._at += 1

    def _check(self, key: str, sigma: float) -> None:
        region, _, name = key.partition(".")
        if region not in self.controllers.regions or name not in self.controllers.regions[region].names:
            known = [f"{r}.{n}" for r, fitted in self.controllers.regions.items() for n in fitted.names]
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else f"it must be one of {', '.join(known)}"
            raise ValueError(f"unknown control {key!r}: {hint}")
        if not abs(sigma) <= LIMIT_SIGMA:
            raise ValueError(f"{key} is {sigma} standard deviations: use {-LIMIT_SIGMA:g} to {LIMIT_SIGMA:g}")

    def _by_region(self, controls: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        regions = {key.partition(".")[0] for key in controls}
        by_region = {r: np.zeros(len(self.controllers.region(r).names)) for r in self.state.latents if r in regions}
        for key, sigma in controls.items():
            region, _, name = key.partition(".")
            by_region[region][self.controllers.position(region, name)] = sigma
        return by_region

    def _measured(self, state: FaceState, name: str) -> float:
        return self._measurements(state)[name]

    def _measurements(self, state: FaceState) -> dict[str, float]:
        if self._landmarks is None:
            raise ValueError("this editor cannot measure: give it landmarks=MeasurementLandmarks.from_template(...)")
        face = self.vertices() if state is self.state else self.build(state.controls)
        return measurement_values(measure(face, self._landmarks))

"""The unknowns of a fit: start, natural unit, bounds and prior of each named group of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Values = dict[str, Tensor]
Limit = float | Tensor


@dataclass(frozen=True)
class Variable:
    """A group of n values per photo, optimised as ``x = initial + unit * u``.

    Attributes:
        initial: (B, n) start values.
        unit: size of a natural step of x, > 0 (1 sigma, 1 mm, .02 rad): one number, (n,) or (B, n). The
            learning rate is in these units.
        lower, upper: bounds of x, same shapes; every step is clamped to them.
        prior_weight: weight of ``sum ((x - centre) / unit)^2`` in the loss; None for the weight of the fit.
        prior_center: centre of the prior, same shapes; None for ``initial``. Give 0 to hold back the total of
            latents rather than their change.
    """

    initial: Tensor
    unit: Limit = 1.0
    lower: Limit = -torch.inf
    upper: Limit = torch.inf
    prior_weight: float | None = None
    prior_center: Limit | None = None


class Unknowns:
    """The variables of a fit in natural units: owns the leaf tensors u, their clamping and their prior.

    Args:
        variables: by name; every ``initial`` has the same B.
        prior: weight of variables that do not set their own.

    Raises:
        ValueError: a variable has a wrong shape, a value that is not finite, a unit <= 0, a negative prior
            weight, or a start outside its bounds.
    """

    def __init__(self, variables: Mapping[str, Variable], prior: float) -> None:
        if not variables:
            raise ValueError("there are no variables to fit; pass at least one")
        self.steps: Values = {}
        self._initial: Values = {}
        self._unit: Values = {}
        self._bounds: dict[str, tuple[Tensor, Tensor]] = {}
        self._centre: Values = {}
        self._weight: dict[str, float] = {}
        for name, variable in variables.items():
            self._add(name, variable, prior)
        batches = {name: len(initial) for name, initial in self._initial.items()}
        if len(set(batches.values())) != 1:
            raise ValueError(f"variables differ in the number of photos: {batches}")
        self.n_photos = next(iter(batches.values()))

    def _add(self, name: str, variable: Variable, prior: float) -> None:
        initial = variable.initial.detach()
        if initial.ndim != 2 or not initial.is_floating_point():
            raise ValueError(f"variable {name!r}: initial has shape {tuple(initial.shape)}; expected (B, n) floats")
        if not bool(torch.isfinite(initial).all()):
            raise ValueError(f"variable {name!r}: initial holds NaN or infinity")

        def like(value: Limit, what: str) -> Tensor:
            tensor = torch.as_tensor(value).to(initial)
            try:
                return tensor.expand_as(initial)
            except RuntimeError:
                shape, wanted = tuple(tensor.shape), tuple(initial.shape)
                raise ValueError(f"variable {name!r}: {what} has shape {shape}, which does not fit {wanted}") from None

        unit, lower, upper = (like(variable.unit, "unit"), like(variable.lower, "lower"), like(variable.upper, "upper"))
        if not bool((unit > 0).all()):
            raise ValueError(f"variable {name!r}: unit is {float(unit.min()):g}; it must be positive")
        outside = (initial < lower) | (initial > upper)
        if bool(outside.any()):
            photo, index = outside.nonzero()[0].tolist()
            value, low, high = (float(tensor[photo, index]) for tensor in (initial, lower, upper))
            raise ValueError(
                f"variable {name!r}: start {value:g} of value {index}, photo {photo} is outside [{low:g}, {high:g}]"
            )
        weight = prior if variable.prior_weight is None else variable.prior_weight
        if not weight >= 0:
            raise ValueError(f"variable {name!r}: prior weight is {weight}; it must be >= 0")
        self._initial[name], self._unit[name], self._weight[name] = initial, unit, weight
        self._bounds[name] = ((lower - initial) / unit, (upper - initial) / unit)
        centre = (
            0.0 if variable.prior_center is None else (like(variable.prior_center, "prior_center") - initial) / unit
        )
        self._centre[name] = torch.as_tensor(centre).to(initial)
        self.steps[name] = torch.zeros_like(initial, requires_grad=True)

    def values(self, steps: Values | None = None) -> Values:
        """{name: (B, n)} of x, differentiable in the steps (the current ones if none are given)."""
        steps = self.steps if steps is None else steps
        return {name: self._initial[name] + self._unit[name] * step for name, step in steps.items()}

    def prior(self) -> Tensor:
        """(B,) weighted quadratic prior of the current steps."""
        terms = [self._weight[name] * (step - self._centre[name]).square().sum(1) for name, step in self.steps.items()]
        return torch.stack(terms).sum(0)

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the steps back within the bounds."""
        for name, step in self.steps.items():
            torch.clamp(step, *self._bounds[name], out=step)

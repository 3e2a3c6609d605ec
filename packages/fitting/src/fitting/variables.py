"""The unknowns of a fit: start, natural unit, bounds and prior of each named group of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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

    def clamped(self) -> Variable:
        """The same variable with its start moved to the nearest value within the bounds."""
        lower, upper = (torch.as_tensor(bound).to(self.initial) for bound in (self.lower, self.upper))
        return replace(self, initial=self.initial.clamp(lower, upper))


class Unknowns:
    """The variables of a fit as one leaf tensor ``steps`` (B, N) in natural units, with its bounds and prior.

    Args:
        variables: by name; every ``initial`` has the same B and the same device.
        prior: weight of variables that do not set their own.

    Raises:
        ValueError: a variable has a wrong shape, a value that is not finite, a unit <= 0, a negative prior
            weight, or a start outside its bounds.
    """

    def __init__(self, variables: Mapping[str, Variable], prior: float) -> None:
        if not variables:
            raise ValueError("there are no variables to fit; pass at least one")
        groups = {name: _Group.of(name, variable, prior) for name, variable in variables.items()}
        batches = {name: len(group.initial) for name, group in groups.items()}
        if len(set(batches.values())) != 1:
            raise ValueError(f"variables differ in the number of photos: {batches}")
        self.n_photos = next(iter(batches.values()))
        self._types = {name: group.initial.dtype for name, group in groups.items()}
        self._sizes = {name: group.initial.shape[1] for name, group in groups.items()}
        self._initial, self._unit, self._lower, self._upper, self._centre, self._weight = (
            torch.cat(columns, 1) for columns in zip(*(group.columns() for group in groups.values()), strict=True)
        )
        self.steps = torch.zeros_like(self._initial, requires_grad=True)

    def _split(self, rows: Tensor) -> Values:
        return dict(zip(self._sizes, rows.split(list(self._sizes.values()), 1), strict=True))

    def values(self, steps: Tensor | None = None) -> Values:
        """{name: (B, n)} of x, differentiable in the steps (the current ones if none are given)."""
        x = self._initial + self._unit * (self.steps if steps is None else steps)
        return {name: part.to(self._types[name]) for name, part in self._split(x).items()}

    def from_centre(self, steps: Tensor) -> Values:
        """{name: (B, n)} distances of x from the centre of its prior, in natural units."""
        return self._split(steps - self._centre)

    def prior(self, steps: Tensor | None = None) -> Tensor:
        """(B,) weighted quadratic prior of the steps (the current ones if none are given)."""
        steps = self.steps if steps is None else steps
        return (self._weight * (steps - self._centre).square()).sum(1)

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the steps back within the bounds."""
        torch.clamp(self.steps, self._lower, self._upper, out=self.steps)

    @torch.no_grad()
    def restore(self, photos: Tensor, steps: Tensor) -> None:
        """Set the steps of the (B,) bool photos to those of ``steps`` (B, N)."""
        if bool(photos.any()):
            self.steps.copy_(torch.where(photos.to(steps.device)[:, None], steps, self.steps))


@dataclass(frozen=True)
class _Group:
    """One checked variable: its start, and everything else (B, n) in natural units from there."""

    initial: Tensor
    unit: Tensor
    lower: Tensor
    upper: Tensor
    centre: Tensor
    weight: float

    def columns(self) -> tuple[Tensor, ...]:
        weight = torch.full_like(self.initial, self.weight)
        return self.initial, self.unit, self.lower, self.upper, self.centre, weight

    @classmethod
    def of(cls, name: str, variable: Variable, prior: float) -> _Group:
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
        outside = ~((initial >= lower) & (initial <= upper))
        if bool(outside.any()):
            photo, index = outside.nonzero()[0].tolist()
            value, low, high = (float(tensor[photo, index]) for tensor in (initial, lower, upper))
            raise ValueError(
                f"variable {name!r}: start {value:g} of value {index}, photo {photo} is outside [{low:g}, {high:g}]; "
                "move the bounds or start from Variable.clamped()"
            )
        weight = prior if variable.prior_weight is None else variable.prior_weight
        if not weight >= 0:
            raise ValueError(f"variable {name!r}: prior weight is {weight}; it must be >= 0")
        centre = initial if variable.prior_center is None else like(variable.prior_center, "prior_center")
        lower, upper, centre = ((value - initial) / unit for value in (lower, upper, centre))
        return cls(initial, unit, lower, upper, centre, weight)

"""The deformation and the rotation fit as autograd functions: hand-written adjoints, `torch.func` transforms, and a
clear refusal of second and forward-mode derivatives.

All tensors are float64 with the batch first. What `backward` needs leaves `forward` as outputs without gradient, so
that every transform sees all there is; `vmap` folds the mapped dimension into the batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from arap_diff import _torch_kernels
from arap_diff._backend import rotation_functions
from arap_diff._implicit import converge, fixed_point_adjoint
from arap_diff._tiers import Tier


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether autograd records what happens to any of the tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _fold(info: Any, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """Arguments of a vmapped call with the mapped dimension of every tensor merged into its batch."""
    folded = []
    for argument, dim in zip(arguments, in_dims, strict=True):
        if isinstance(argument, Tensor):
            mapped = argument.expand(info.batch_size, *argument.shape) if dim is None else argument.movedim(dim, 0)
            argument = mapped.flatten(0, 1)
        folded.append(argument)
    return folded


def _unfold(info: Any, outputs: Any) -> tuple[Any, Any]:
    """Outputs of the folded call with the mapped dimension in front, and where it is."""
    if isinstance(outputs, Tensor):
        return outputs.unflatten(0, (info.batch_size, outputs.shape[0] // info.batch_size)), 0
    parts = [_unfold(info, output)[0] for output in outputs]
    return tuple(parts), (0,) * len(parts)


class _BatchFunction(torch.autograd.Function):
    """A function of tensors with the batch first, with a gradient but no forward-mode derivative."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        return _unfold(info, cls.apply(*_fold(info, in_dims, arguments)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("arap_diff has no forward-mode derivatives: use backward, torch.func.grad, vjp or jacrev")


class _GradientFunction(_BatchFunction):
    """A gradient, in the graph only so that differentiating it again is an error and not a wrong number."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass


class RaiseUnlessFinite(torch.autograd.Function):
    """Looks at the values, also inside `torch.func.vmap`, where plain code cannot; its result means nothing.

    `message` is called with the mask of finite values, for the text of the ValueError.
    """

    @staticmethod
    def forward(values: Tensor, message: Callable[[Tensor], str]) -> Tensor:
        finite = torch.isfinite(values)
        if not finite.all():
            raise ValueError(message(finite))
        return values.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], values: Tensor, message: Callable[[Tensor], str]) -> tuple[Any, Any]:
        return RaiseUnlessFinite.apply(values.movedim(in_dims[0], 0), message), None


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Those that are not None, which is all that a transform can see."""
    return tuple(tensor for tensor in tensors if tensor is not None)


def _of_rest_and_handles(bars: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return (None, *bars) if len(bars) == 1 else bars


class Deform(_BatchFunction):
    """A given number of solves; the deformed positions come first, then what the adjoint needs if `keep` is true."""

    @staticmethod
    def forward(p: Tensor, h: Tensor, tier: Tier, n_solves: int, keep: bool) -> tuple[Tensor, ...]:
        return tier.unrolled(p, h, n_solves, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        p, _, ctx.tier, _, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(p, *output[1:])

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        p, h, tier, n_solves, keep = _fold(info, in_dims, arguments)
        return _unfold(info, cls.apply(p, h, tier, n_solves, keep or wants_gradient(p, h)))

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        p, *kept = ctx.saved_tensors
        bars = _DeformGradient.apply(ctx.tier, ctx.needs_input_grad[0], output_bars[0], p, *kept)
        return (*_of_rest_and_handles(bars), None, None, None)


class _DeformGradient(_GradientFunction):
    """The gradient of `Deform`."""

    @staticmethod
    def forward(tier: Tier, rest_wanted: bool, x_bar: Tensor, p: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        return _present(*tier.unrolled_adjoint(p, kept, x_bar, rest_wanted))

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("ArapSolver.solve can be differentiated once; its gradient has no derivative of its own")


class DeformToConvergence(_BatchFunction):
    """Solves until nothing moves by `tol` any more."""

    @staticmethod
    def forward(p: Tensor, h: Tensor, tier: Tier, tol: float, max_solves: int) -> Tensor:
        return converge(tier, p, h, tol, max_solves)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        p, _, ctx.tier, _, _ = inputs
        ctx.save_for_backward(p, output)

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        bars = _FixedPointGradient.apply(ctx.tier, ctx.needs_input_grad[0], *output_bars, *ctx.saved_tensors)
        return (*_of_rest_and_handles(bars), None, None, None)


class _FixedPointGradient(_GradientFunction):
    """The gradient of `DeformToConvergence`."""

    @staticmethod
    def forward(tier: Tier, rest_wanted: bool, x_bar: Tensor, p: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return _present(*fixed_point_adjoint(tier, p, x, x_bar, rest_wanted))

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "ArapSolver.solve_converged can be differentiated once; its gradient has no derivative of its own"
        )


class FitRotations(_BatchFunction):
    """Best rotations of covariances (N, 3, 3), with a second copy for the adjoint."""

    @staticmethod
    def forward(covariance: Tensor) -> tuple[Tensor, Tensor]:
        if covariance.device.type == "cpu":
            fit, _ = rotation_functions()
            rotation = torch.from_numpy(fit(covariance.detach().contiguous().numpy()))
        else:
            rotation = _torch_kernels.fit_rotation_stack(covariance)
        return rotation, rotation.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> Tensor:
        gradient: Tensor = _FitRotationsGradient.apply(output_bars[0], *ctx.saved_tensors)
        return gradient


class _FitRotationsGradient(_GradientFunction):
    """The gradient of `FitRotations`."""

    @staticmethod
    def forward(rotation_bar: Tensor, covariance: Tensor, rotation: Tensor) -> Tensor:
        matrices = covariance, rotation, rotation_bar
        if covariance.device.type == "cpu":
            _, adjoint = rotation_functions()
            return torch.from_numpy(adjoint(*(part.detach().contiguous().numpy() for part in matrices)))
        return _torch_kernels.rotation_adjoint_stack(*matrices)

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("fit_rotations can be differentiated once; its gradient has no derivative of its own")

"""Checks of the tensors that callers pass, with errors that say what is wrong and where."""

from numbers import Integral, Real

import torch
from torch import Tensor

from arap_diff._autograd import RaiseUnlessFinite

DEVICES_WITHOUT_FLOAT64 = ("meta", "mps")


def check_points(name: str, points: Tensor, count: int, letter: str) -> None:
    """ValueError unless `points` are (..., count, 3), float32 or float64, on a usable device, and finite."""
    if not isinstance(points, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(points).__name__}")
    if points.ndim < 2 or points.shape[-2:] != (count, 3):
        raise ValueError(f"{name} must have shape (..., {letter}={count}, 3), got {tuple(points.shape)}")
    if points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {points.dtype}")
    if points.device.type in DEVICES_WITHOUT_FLOAT64:
        raise ValueError(f"{name} is on {points.device}, which cannot compute in float64: move it to the CPU")

    def message(finite: Tensor) -> str:
        return f"{name} has a value that is not finite, first at row {int((~finite).nonzero()[0][-2])}"

    RaiseUnlessFinite.apply(points.detach(), message)


def check_same_device(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """ValueError if two tensors are on different devices."""
    if first.device != second.device:
        raise ValueError(f"{first_name} is on {first.device} but {second_name} is on {second.device}")


def broadcast_batch(first_name: str, first: Tensor, second_name: str, second: Tensor) -> torch.Size:
    """Common leading dimensions of two sets of points, or ValueError."""
    try:
        return torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"leading dimensions of {first_name} {tuple(first.shape)} and {second_name} {tuple(second.shape)} "
            "do not broadcast"
        ) from None


def check_count(name: str, value: int, least: int) -> None:
    """ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_length(name: str, value: float) -> None:
    """ValueError unless `value` is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a positive length in the units of the mesh, got {value!r}")

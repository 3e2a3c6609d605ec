"""The rotation fit: both tiers against the textbook SVD, its gradient, and inputs where the SVD's own fails."""

import numpy as np
import pytest
import torch

from arap_diff import _backend, _numpy_kernels, _torch_kernels, fit_rotations


def textbook_rotations(covariance: np.ndarray) -> np.ndarray:
    result = np.empty_like(covariance)
    for k, s in enumerate(covariance):
        u, _, vt = np.linalg.svd(s)
        result[k] = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return result


def random_rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    q[:, :, 2] *= np.linalg.det(q)[:, None]
    return q


def with_singular_values(values: tuple[float, float, float], count: int = 200) -> np.ndarray:
    """Random covariances of given singular values; the last may be negative, which makes a reflection."""
    rng = np.random.default_rng(3)
    return random_rotations(rng, count) @ np.diag(values) @ random_rotations(rng, count).transpose(0, 2, 1)


def fit(tier: str, covariance: np.ndarray) -> np.ndarray:
    if tier == "numpy":
        return _numpy_kernels.fit_rotations(covariance)
    if tier == "torch":
        return _torch_kernels.fit_rotation_stack(torch.from_numpy(covariance)).numpy()
    from arap_diff import _numba_blocks

    return _numba_blocks.fit_rotations(covariance)


def adjoint(tier: str, *arguments: np.ndarray) -> np.ndarray:
    if tier == "numpy":
        return _numpy_kernels.rotation_adjoint(*arguments)
    if tier == "torch":
        return _torch_kernels.rotation_adjoint_stack(*map(torch.from_numpy, arguments)).numpy()
    from arap_diff import _numba_blocks

    return _numba_blocks.rotation_adjoint(*arguments)


@pytest.mark.parametrize(
    "values",
    [
        (3, 2, 1),
        (1, 1, 1),
        (1, 1, 0.5),
        (5, 0.4, 1e-3),
        (1, 0.03, 0),
        (2, 1, -0.3),
        (1, 0.9, -0.85),
        (1e-9, 5e-10, 2e-10),
    ],
    ids=["generic", "equal", "two equal", "thin", "planar", "reflected", "reflected, small gap", "tiny"],
)
def test_fit_equals_textbook_svd(tier: str, values: tuple[float, float, float]) -> None:
    covariance = with_singular_values(values)
    np.testing.assert_allclose(fit(tier, covariance), textbook_rotations(covariance), atol=2e-10)


def test_fit_equals_textbook_svd_on_gaussian_matrices(tier: str) -> None:
    covariance = np.random.default_rng(0).normal(size=(3000, 3, 3))
    np.testing.assert_allclose(fit(tier, covariance), textbook_rotations(covariance), atol=1e-9)


def test_hard_matrices_do_not_disturb_their_neighbours(tier: str) -> None:
    covariance = np.random.default_rng(5).normal(size=(13, 3, 3))
    covariance[3] = 0
    covariance[6] = np.outer([1, 2, 3], [3, -1, 2])
    covariance[12] = np.diag([1, 0.5, -0.5])
    rotation = fit(tier, covariance)
    plain = np.delete(np.arange(13), [3, 6, 12])
    np.testing.assert_allclose(rotation[plain], textbook_rotations(covariance[plain]), atol=1e-9)
    np.testing.assert_allclose(rotation, _numpy_kernels.fit_rotations(covariance), atol=1e-9)


@pytest.mark.parametrize("values", [(1, 0, 0), (1, 0.5, -0.5), (1, 1e-12, 0)], ids=["rank one", "mirror", "needle"])
def test_ambiguous_covariance_still_gets_a_best_rotation(tier: str, values: tuple[float, float, float]) -> None:
    covariance = with_singular_values(values)
    rotation = fit(tier, covariance)
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)
    reached = np.einsum("nab,nab->n", rotation, covariance)
    np.testing.assert_allclose(reached, sum(values), atol=1e-9)


@pytest.mark.parametrize("size", [1e-6, 1, 1e6])
def test_rank_one_fit_is_the_smallest_rotation_between_the_two_directions(tier: str, size: float) -> None:
    to, came_from = np.array([2, -1, 2]) / 3, np.array([1, 2, 2]) / 3
    x, y, z = np.cross(came_from, to)
    axis = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = fit(tier, size * np.outer(to, came_from)[None])[0]
    np.testing.assert_allclose(rotation, np.eye(3) + axis + axis @ axis / (1 + to @ came_from), atol=1e-6)


def test_zero_covariance_gives_identity_and_no_gradient(tier: str) -> None:
    zero = np.zeros((2, 3, 3))
    rotation = fit(tier, zero)
    np.testing.assert_array_equal(rotation, np.broadcast_to(np.eye(3), (2, 3, 3)))
    np.testing.assert_array_equal(adjoint(tier, zero, rotation, np.ones((2, 3, 3))), zero)


@pytest.mark.parametrize("size", [1e-6, 1, 1e6])
def test_adjoint_is_the_same_in_every_tier_and_shrinks_as_the_covariance_grows(tier: str, size: float) -> None:
    covariance = np.random.default_rng(1).normal(size=(500, 3, 3))
    rotation_bar = np.random.default_rng(2).normal(size=(500, 3, 3))
    rotation = textbook_rotations(covariance)
    expected = adjoint("numpy", covariance, rotation, rotation_bar)
    found = size * adjoint(tier, size * covariance, rotation, rotation_bar)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("with_numba", [True, False])
@pytest.mark.parametrize("values", [(3, 2, 1), (1, 1, 1), (2, 1, -0.3), (1, 0.4, 0)])
def test_gradient_of_the_fit(
    monkeypatch: pytest.MonkeyPatch, with_numba: bool, values: tuple[float, float, float]
) -> None:
    if with_numba and not _backend.has_numba():
        pytest.skip("numba is not installed (extra fast)")
    monkeypatch.setattr(_backend, "has_numba", lambda: with_numba)
    covariance = torch.from_numpy(with_singular_values(values, 2)).requires_grad_()
    assert torch.autograd.gradcheck(fit_rotations, (covariance,))


@pytest.mark.parametrize("values", [(1, 0, 0), (0, 0, 0), (1, 0.5, -0.5), (1, 1, 1)])
def test_gradient_is_finite_where_the_svd_has_none(values: tuple[float, float, float]) -> None:
    covariance = torch.from_numpy(with_singular_values(values, 4)).requires_grad_()
    fit_rotations(covariance).sin().sum().backward()
    assert torch.isfinite(covariance.grad).all()


def test_fit_keeps_leading_dimensions_dtype_and_the_input() -> None:
    covariance = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    before = covariance.clone()
    rotation = fit_rotations(covariance)
    assert rotation.shape == (2, 5, 3, 3)
    assert rotation.dtype == torch.float32
    assert torch.equal(covariance, before)


def test_editing_the_result_in_place_does_not_change_the_gradient() -> None:
    covariance = torch.from_numpy(with_singular_values((3, 2, 1), 2)).requires_grad_()
    (expected,) = torch.autograd.grad(fit_rotations(covariance).sum(), covariance)
    rotation = fit_rotations(covariance)
    total = rotation.sum()
    rotation.detach().zero_()
    (gradient,) = torch.autograd.grad(total, covariance)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.zeros(3, 2), r"covariance must have shape \(\.\.\., 3, 3\), got \(3, 2\)"),
        (torch.zeros(3, 3, dtype=torch.int64), "covariance must be float32 or float64, got torch.int64"),
        (torch.full((1, 3, 3), float("nan")), "covariance has values that are not finite"),
    ],
)
def test_fit_refuses_bad_input(covariance: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_rotations(covariance)


def test_second_derivative_is_refused() -> None:
    covariance = torch.eye(3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(fit_rotations(covariance).sin().sum(), covariance, create_graph=True)
    with pytest.raises(RuntimeError, match="fit_rotations can be differentiated once"):
        gradient.sum().backward()

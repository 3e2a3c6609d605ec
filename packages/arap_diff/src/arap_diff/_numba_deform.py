"""The alternation of `_unrolled` and its adjoint on compiled kernels, in a numbering and a layout that suit them.

Vertices are renumbered so that neighbours are near each other in memory; idle ones, in no face, are left out. Points
are (B, M, 4), see `_numba_kernels`. The unknown u = x - p has the handle steps h - p in its handle rows; what they add
to every residual, -L u_h, is the `carry`.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from arap_diff import _numba_kernels as kernels
from arap_diff._numba_supernodes import FACES_AT_ONCE, WORTH_SHARING, SupernodalFactor
from arap_diff._team import Team
from arap_diff._workspace import Workspace
from arap_diff.mesh import Edges, FloatArray, IntArray


class CompiledAlternation:
    """`deform` and `deform_adjoint` of one system.

    Args:
        edges: of the whole mesh.
        order: (N,) the free vertices in elimination order.
        handles: (K,) vertices.
        n_vertices: V.
        factor: of A_ff in that order.
        team: shares the work on a large mesh, and on the faces of a batch.
        bilaplacian: A = L^T L, else A = L.
    """

    def __init__(
        self,
        edges: Edges,
        order: IntArray,
        handles: IntArray,
        n_vertices: int,
        factor: SupernodalFactor,
        team: Team,
        bilaplacian: bool,
    ) -> None:
        used = np.zeros(n_vertices, dtype=bool)
        used[order] = used[handles] = True
        near = _neighbours_together(edges, n_vertices)
        self._vertex = near[used[near]]
        place = np.full(n_vertices, -1)
        place[self._vertex] = np.arange(self._vertex.size)
        self._free, self._held = place[order], place[handles]
        renumbered = Edges(place[edges.start], place[edges.end], edges.weight)
        self._ring = kernels.ring_of(renumbered, self._vertex.size)
        self._factor, self._team = factor, team
        self._bilaplacian = bilaplacian
        self._workspace = Workspace()

    def deform(
        self, p: FloatArray, h: FloatArray, n_solves: int, keep: bool
    ) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """See `_unrolled.deform`; with `keep` also the positions and the quaternions (B, M, 4) of every fit."""
        shape = (len(p), self._vertex.size, 4)
        fits = n_solves - 1 if keep else 0
        positions, quaternions = [np.empty(shape) for _ in range(fits)], [np.empty(shape) for _ in range(fits)]
        x = p.copy()

        def deform(faces: slice) -> None:
            rest, u, x_fit, q_fit = (self._take(name, p[faces]) for name in ("p", "u", "x", "q"))
            self._load(p[faces], rest)
            self._start(rest, h[faces], u)
            for step in range(n_solves - 1):
                if keep:
                    x_fit, q_fit = positions[step][faces], quaternions[step][faces]
                np.add(rest, u, out=x_fit)
                self._step(rest, x_fit, q_fit, u)
            self._each(kernels.add_points, u, self._vertex, x[faces])

        self._team.run([partial(deform, faces) for faces in _chunks(len(p))])
        x[:, self._vertex[self._held]] = h
        return x, positions, quaternions

    def _start(self, p: FloatArray, targets: FloatArray, u: FloatArray) -> None:
        """The first solve, with all rotations the identity; leaves the `carry`."""
        steps = targets - p[:, self._held, :3]
        u[:] = 0
        u[:, self._held, :3] = -steps
        carry = self._take("carry", p)
        self._each(kernels.laplacian, u, *self._ring, carry)
        self._solve_for(carry, u)
        u[:, self._held, :3] = steps

    def _step(self, p: FloatArray, x: FloatArray, q: FloatArray, u: FloatArray) -> None:
        """Fit the rotations q from p to x, and solve for u."""
        r, b = self._workspace.take("r", *p.shape[:2], 3, 4), self._take("b", p)
        if not all(self._each(kernels.fit_rows, x, p, *self._ring, q, r)):
            kernels.fit_hard(self._ring, x, p, q, r)
        self._each(kernels.rotated_residual, r, p, *self._ring, self._take("carry", p), b)
        self._solve_for(b, u)

    def _solve_for(self, b: FloatArray, u: FloatArray) -> None:
        """The free rows of u from A u = K b."""
        if self._bilaplacian:
            smoothed = self._take("smoothed", b)
            self._each(kernels.laplacian, b, *self._ring, smoothed)
            b = smoothed
        self._factor.solve(self._free, b, u)

    def deform_adjoint(
        self, p: FloatArray, positions: list[FloatArray], quaternions: list[FloatArray], x_bar: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """See `_unrolled.deform_adjoint`."""
        p_bar = x_bar.copy()
        p_bar[:, self._vertex] = 0
        h_bar = np.empty((len(p), self._held.size, 3))

        def pull_back(faces: slice) -> None:
            rest, bar = self._take("p", p[faces]), self._take("x", p[faces])
            self._load(p[faces], rest)
            self._load(x_bar[faces], bar)
            fits = [(x[faces], q[faces]) for x, q in zip(positions, quaternions, strict=True)]
            rest_bar, target_bar = self._pull_back(rest, fits, bar)
            self._each(kernels.add_points, rest_bar, self._vertex, p_bar[faces])
            h_bar[faces] = target_bar[:, :, :3]

        self._team.run([partial(pull_back, faces) for faces in _chunks(len(p))])
        return p_bar, h_bar

    def _pull_back(
        self, p: FloatArray, fits: list[tuple[FloatArray, FloatArray]], x_bar: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Gradients with respect to p (B, M, 4) and to the targets (B, K, 4); x_bar is overwritten."""
        p_bar, b_bar, total = self._take("q", p), self._take("b", p), self._take("carry", p)
        r, s_bar = self._workspace.take("r", *p.shape[:2], 3, 4), self._workspace.take("s_bar", *p.shape[:2], 3, 4)
        np.copyto(p_bar, x_bar)
        target_bar = x_bar[:, self._held]
        self._residual_bar(x_bar, total)
        np.copyto(b_bar, total)
        for x, q in reversed(fits):
            self._each(kernels.covariance_bars, x, p, q, b_bar, *self._ring, r, s_bar)
            self._each(kernels.position_bars, x, p, r, b_bar, s_bar, *self._ring, x_bar, p_bar)
            target_bar += x_bar[:, self._held]
            self._residual_bar(x_bar, b_bar)
            total += b_bar
        self._each(kernels.laplacian, total, *self._ring, b_bar)
        step_bar = b_bar[:, self._held]
        p_bar[:, self._held] += step_bar - target_bar
        return p_bar, target_bar - step_bar

    def _residual_bar(self, x_bar: FloatArray, b_bar: FloatArray) -> None:
        """Gradient with respect to the residual b of A u = K b, given the one with respect to x."""
        multiplier = self._take("u", x_bar) if self._bilaplacian else b_bar
        multiplier[:, self._held] = 0
        self._factor.solve(self._free, x_bar, multiplier)
        if self._bilaplacian:
            self._each(kernels.laplacian, multiplier, *self._ring, b_bar)

    def _each(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of a kernel on all vertices, in runs that the team shares."""
        size = self._vertex.size
        runs = self._team.size if size >= WORTH_SHARING else 1
        cuts = [size * k // runs for k in range(runs + 1)]
        return self._team.run([partial(kernel, lo, hi, *arguments) for lo, hi in pairwise(cuts)])

    def _take(self, name: str, like: FloatArray) -> FloatArray:
        return self._workspace.take(name, len(like), self._vertex.size, 4)

    def _load(self, points: FloatArray, out: FloatArray) -> None:
        self._each(kernels.load_points, points, self._vertex, out)


def _neighbours_together(edges: Edges, n_vertices: int) -> IntArray:
    """All vertices in an order with small distances along the edges (reverse Cuthill-McKee)."""
    graph = sp.coo_matrix((np.ones(edges.start.size), (edges.start, edges.end)), shape=(n_vertices, n_vertices))
    order: IntArray = sp.csgraph.reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)
    return order


def _chunks(batch: int) -> list[slice]:
    return [slice(at, at + FACES_AT_ONCE) for at in range(0, batch, FACES_AT_ONCE)]

"""`Alternation` on compiled kernels, in a numbering and a layout that suit them.

Vertices are renumbered so that neighbours are near each other in memory; idle ones, in no face, are left out. Points
are (B, M, 4), see `_numba_kernels`, and rotations unit quaternions (B, M, 4). The unknown u = x - p has the handle
steps h - p in its handle rows; what they add to every residual, -L u_h, is the `carry`.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from arap_diff import _numba_kernels as kernels
from arap_diff._factor import StoredFactor
from arap_diff._numba_packing import factorise
from arap_diff._numba_supernodes import FACES_AT_ONCE, WORTH_SHARING, SupernodalFactor
from arap_diff._system import System
from arap_diff._team import Team
from arap_diff._workspace import Workspace
from arap_diff.mesh import Edges, FloatArray, IntArray


class CompiledAlternation:
    """See `Alternation`; a team of threads shares the work on a large mesh, and on the faces of a batch.

    A stored factor of the same system saves factorising it. It must have passed its check.
    """

    def __init__(self, system: System, stored: StoredFactor | None) -> None:
        stored = stored or factorise(system.block())
        order, edges = system.free[stored.order], system.edges
        used = np.zeros(system.n_vertices, dtype=bool)
        used[order] = used[system.handles] = True
        near = _neighbours_together(edges, system.n_vertices)
        self._vertex = near[used[near]]
        place = np.full(system.n_vertices, -1)
        place[self._vertex] = np.arange(self._vertex.size)
        self._free, self._held = place[order], place[system.handles]
        renumbered = Edges(place[edges.start], place[edges.end], edges.weight)
        self._ring = kernels.ring_of(renumbered, self._vertex.size)
        self._team, self._workspace = Team(), Workspace()
        self.stored_factor: StoredFactor | None = stored
        self.factor = SupernodalFactor(stored, self._team)
        self._bilaplacian = system.bilaplacian

    def deform(
        self, p: FloatArray, h: FloatArray, n_solves: int, keep: bool
    ) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """See `Alternation`; the positions kept are (B, M, 4)."""
        shape = (len(p), self._vertex.size, 4)
        fits = n_solves - 1 if keep else 0
        positions, quaternions = [np.empty(shape) for _ in range(fits)], [np.empty(shape) for _ in range(fits)]
        x = p.copy()

        def deform(faces: slice) -> None:
            rest = self._load("p", p[faces])
            u, x_fit, q_fit = self._take("u", rest), self._take("x", rest), self._take("q", rest)
            self._solve_for(self._hold(rest, h[faces], u), u)
            for step in range(n_solves - 1):
                if keep:
                    x_fit, q_fit = positions[step][faces], quaternions[step][faces]
                np.add(rest, u, out=x_fit)
                self._step(rest, x_fit, q_fit, u)
            self._add(u, x[faces])

        self._for_faces(len(p), deform)
        x[:, self._vertex[self._held]] = h
        return x, positions, quaternions

    def rotations(self, p: FloatArray, x: FloatArray) -> FloatArray:
        """See `Alternation`."""
        quaternions = np.empty((len(p), self._vertex.size, 4))

        def fit(faces: slice) -> None:
            self._fit(self._load("p", p[faces]), self._load("x", x[faces]), quaternions[faces])

        self._for_faces(len(p), fit)
        return quaternions

    def advance(self, p: FloatArray, h: FloatArray, x: FloatArray) -> FloatArray:
        """See `Alternation`."""
        moved = p.copy()

        def advance(faces: slice) -> None:
            rest, now = self._load("p", p[faces]), self._load("x", x[faces])
            u, q = self._take("u", rest), self._take("q", rest)
            self._hold(rest, h[faces], u)
            self._step(rest, now, q, u)
            self._add(u, moved[faces])

        self._for_faces(len(p), advance)
        moved[:, self._vertex[self._held]] = h
        return moved

    def _hold(self, p: FloatArray, targets: FloatArray, u: FloatArray) -> FloatArray:
        """Sets the handle rows of u, and returns the `carry`."""
        steps = targets - p[:, self._held, :3]
        u[:] = 0
        u[:, self._held, :3] = -steps
        carry = self._take("carry", p)
        self._each(kernels.laplacian, u, *self._ring, carry)
        u[:, self._held, :3] = steps
        return carry

    def _step(self, p: FloatArray, x: FloatArray, q: FloatArray, u: FloatArray) -> None:
        """Fit the rotations q from p to x, and solve for u."""
        r, b = self._fit(p, x, q), self._take("b", p)
        self._each(kernels.rotated_residual, r, p, *self._ring, self._take("carry", p), b)
        self._solve_for(b, u)

    def _fit(self, p: FloatArray, x: FloatArray, q: FloatArray) -> FloatArray:
        """Fit the rotations q from p to x, and return them as matrices."""
        r = self._take_matrices("r", p)
        if not all(self._each(kernels.fit_rows, x, p, *self._ring, q, r)):
            kernels.fit_hard(self._ring, x, p, q, r)
        return r

    def _solve_for(self, b: FloatArray, u: FloatArray) -> None:
        """The free rows of u from A u = K b."""
        if self._bilaplacian:
            smoothed = self._take("smoothed", b)
            self._each(kernels.laplacian, b, *self._ring, smoothed)
            b = smoothed
        self.factor.solve_points(self._free, b, u)

    def deform_adjoint(
        self,
        p: FloatArray,
        positions: list[FloatArray],
        rotations: list[FloatArray],
        x_bar: FloatArray,
        rest_wanted: bool,
    ) -> tuple[FloatArray | None, FloatArray]:
        """See `Alternation`."""
        p_bar, h_bar = self._idle(x_bar, rest_wanted), np.empty((len(p), self._held.size, 3))

        def pull_back(faces: slice) -> None:
            rest, bar = self._load("p", p[faces]), self._load("x", x_bar[faces])
            rest_bar = self._load("q", x_bar[faces]) if rest_wanted else None
            b_bar, total = self._take("b", rest), self._take("carry", rest)
            target_bar = bar[:, self._held]
            self._residual_bar(bar, total)
            np.copyto(b_bar, total)
            for x, q in zip(reversed(positions), reversed(rotations), strict=True):
                self._through_fit(rest, x[faces], q[faces], b_bar, bar, rest_bar)
                target_bar += bar[:, self._held]
                self._residual_bar(bar, b_bar)
                total += b_bar
            h_bar[faces] = self._to_targets(total, target_bar, rest_bar)
            if p_bar is not None and rest_bar is not None:
                self._add(rest_bar, p_bar[faces])

        self._for_faces(len(p), pull_back)
        return p_bar, h_bar

    def advance_adjoint(
        self, p: FloatArray, x: FloatArray, rotation: FloatArray, y_bar: FloatArray, rest_wanted: bool
    ) -> tuple[FloatArray, FloatArray | None, FloatArray]:
        """See `Alternation`."""
        x_bar, p_bar = np.zeros_like(y_bar), self._idle(y_bar, rest_wanted)
        h_bar = np.empty((len(p), self._held.size, 3))

        def pull_back(faces: slice) -> None:
            rest, now, bar = self._load("p", p[faces]), self._load("x", x[faces]), self._load("y", y_bar[faces])
            rest_bar = self._load("q", y_bar[faces]) if rest_wanted else None
            b_bar, target_bar = self._take("b", rest), bar[:, self._held]
            self._residual_bar(bar, b_bar)
            self._through_fit(rest, now, rotation[faces], b_bar, bar, rest_bar)
            self._add(bar, x_bar[faces])
            h_bar[faces] = self._to_targets(b_bar, target_bar, rest_bar)
            if p_bar is not None and rest_bar is not None:
                rest_bar -= bar  # x is p + u only within `deform`
                self._add(rest_bar, p_bar[faces])

        self._for_faces(len(p), pull_back)
        return x_bar, p_bar, h_bar

    def _through_fit(
        self,
        p: FloatArray,
        x: FloatArray,
        q: FloatArray,
        b_bar: FloatArray,
        x_bar: FloatArray,
        p_bar: FloatArray | None,
    ) -> None:
        """Gradient x_bar given b_bar; the one with respect to p, x being p + u, is added to p_bar."""
        s_bar = self._take_matrices("s_bar", p)
        if p_bar is None:
            self._each(kernels.covariance_bars, x, p, q, b_bar, *self._ring, None, s_bar)
            self._each(kernels.position_bars, p, s_bar, *self._ring, x_bar)
        else:
            r = self._take_matrices("r", p)
            self._each(kernels.covariance_bars, x, p, q, b_bar, *self._ring, r, s_bar)
            self._each(kernels.position_and_rest_bars, x, p, r, b_bar, s_bar, *self._ring, x_bar, p_bar)

    def _residual_bar(self, x_bar: FloatArray, b_bar: FloatArray) -> None:
        """Gradient with respect to the residual b of A u = K b, given the one with respect to x."""
        multiplier = self._take("u", x_bar) if self._bilaplacian else b_bar
        multiplier[:, self._held] = 0
        self.factor.solve_points(self._free, x_bar, multiplier)
        if self._bilaplacian:
            self._each(kernels.laplacian, multiplier, *self._ring, b_bar)

    def _to_targets(self, b_bar: FloatArray, target_bar: FloatArray, p_bar: FloatArray | None) -> FloatArray:
        """Gradient (B, K, 3) with respect to the targets, given those of the carry and of the handles' positions."""
        step_bars = self._take("u", b_bar)
        self._each(kernels.laplacian, b_bar, *self._ring, step_bars)
        bar = target_bar - step_bars[:, self._held]
        if p_bar is not None:
            p_bar[:, self._held] -= bar
        return bar[:, :, :3]

    def _idle(self, bar: FloatArray, wanted: bool) -> FloatArray | None:
        """A gradient with respect to p that has only what the idle vertices pass on."""
        if not wanted:
            return None
        p_bar = bar.copy()
        p_bar[:, self._vertex] = 0
        return p_bar

    def _each(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of a kernel on all vertices, in runs that the team shares."""
        size = self._vertex.size
        runs = self._team.size if size >= WORTH_SHARING else 1
        cuts = [size * k // runs for k in range(runs + 1)]
        return self._team.run([partial(kernel, lo, hi, *arguments) for lo, hi in pairwise(cuts)])

    def _for_faces(self, batch: int, task: Callable[[slice], None]) -> None:
        """Do something with all faces of a batch, a few at a time."""
        at_once = [slice(at, at + FACES_AT_ONCE) for at in range(0, batch, FACES_AT_ONCE)]
        self._team.run([partial(task, faces) for faces in at_once])

    def _take(self, name: str, like: FloatArray) -> FloatArray:
        return self._workspace.take(name, len(like), self._vertex.size, 4)

    def _take_matrices(self, name: str, like: FloatArray) -> FloatArray:
        return self._workspace.take(name, len(like), self._vertex.size, 3, 4)

    def _load(self, name: str, points: FloatArray) -> FloatArray:
        """Points (B, V, 3) in our own layout, in memory of that name."""
        out = self._take(name, points)
        self._each(kernels.load_points, points, self._vertex, out)
        return out

    def _add(self, ours: FloatArray, points: FloatArray) -> None:
        """Add points in our own layout to points (B, V, 3)."""
        self._each(kernels.add_points, ours, self._vertex, points)


def _neighbours_together(edges: Edges, n_vertices: int) -> IntArray:
    """All vertices in an order with small distances along the edges (reverse Cuthill-McKee)."""
    graph = sp.coo_matrix((np.ones(edges.start.size), (edges.start, edges.end)), shape=(n_vertices, n_vertices))
    order: IntArray = sp.csgraph.reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)
    return order

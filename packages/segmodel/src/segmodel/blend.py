"""Natural seams: as-rigid-as-possible deformation of the skin around the parts (NEO-3DF section 3.4)."""

from __future__ import annotations

import copy

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from arap_diff import ArapSolver
from segmodel.layout import PartLayout


class SeamBlender(nn.Module):
    """Deform the transition area so that the rest decoder's skin follows the part borders.

    The rest pose is the rest decoder's prediction on the area, including its own version of the overlap ring. Handles
    are the part borders, at their composed positions, and the outer ring, where the rest decoder put it. Only the free
    vertices of the area change; every other vertex of the result is bit-identical to ``composed``.

    Args:
        layout: the labelled topology.
        template: ``(V, 3)`` mm, on which the radius is measured.
        radius_mm: how far from a part border skin may move.
        n_solves: linear solves per blend; rotations are fitted between them. The paper uses 3; 1 is a purely linear
            blend, cheap enough for the inside of a fitting loop.
    """

    _vertex_ids: Tensor
    _handle_ids: Tensor
    _free: Tensor

    def __init__(
        self, layout: PartLayout, template: ArrayLike | None = None, radius_mm: float = 30.0, n_solves: int = 3
    ) -> None:
        super().__init__()
        _check_solves(n_solves)
        if template is not None:
            layout = PartLayout.from_labels(layout.labels, layout.faces, template)
        self.area = layout.transition(radius_mm)
        self.n_vertices = layout.n_vertices
        self.n_solves = n_solves
        self._solver = ArapSolver(self.area.faces, self.area.handles, len(self.area.vertex_ids))
        vertex_ids = torch.from_numpy(self.area.vertex_ids)
        self.register_buffer("_vertex_ids", vertex_ids, persistent=False)
        self.register_buffer("_handle_ids", vertex_ids[self.area.handles], persistent=False)
        self.register_buffer("_free", torch.from_numpy(self.area.free), persistent=False)

    def with_solves(self, n_solves: int) -> SeamBlender:
        """The same blender with another number of solves; both share the sparse factor."""
        _check_solves(n_solves)
        other = copy.copy(self)
        other.n_solves = n_solves
        return other

    def forward(self, composed: Tensor, rest: Tensor) -> Tensor:
        """Blend ``composed (..., V, 3)`` and ``rest (..., V, 3)``, as from ``SegmentModel.compose``; mm in, mm out.

        Differentiable in both arguments. Raises ValueError when a shape is not the layout's.
        """
        for name, vertices in (("composed", composed), ("rest", rest)):
            if vertices.shape[-2:] != (self.n_vertices, 3):
                raise ValueError(f"{name} has shape {tuple(vertices.shape)}: give (..., {self.n_vertices}, 3) vertices")
        pose = rest.index_select(-2, self._vertex_ids)
        solved = self._solver.solve(pose, composed.index_select(-2, self._handle_ids), n_solves=self.n_solves)
        moved = solved.index_select(-2, self._free).to(composed.dtype)
        return composed.index_copy(-2, self._vertex_ids[self._free], moved)


def _check_solves(n_solves: int) -> None:
    if n_solves < 1:
        raise ValueError(f"n_solves is {n_solves}: give at least 1")

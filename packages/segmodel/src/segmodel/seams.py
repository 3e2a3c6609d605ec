"""How visible the seams around the parts are, before and after blending: stretch, creases, flips, what was moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segmodel._mesh import Ids
from segmodel.layout import PartLayout, TransitionArea
from segmodel.parts import LABEL_IDS


@dataclass(frozen=True)
class SeamMeasures:
    """The seams of B faces.

    Attributes:
        stretch: ``(B, E)`` of each seam edge, one that joins a part vertex with a rest vertex: its length over that in
            the rest pose, minus 1, absolute.
        stretch_mm: ``(B, E)`` the same difference of lengths in mm.
        crease_deg: ``(B, C)`` how much more or less the surface bends than in the reference, in degrees of dihedral
            angle, at each edge of the triangles that join a part with the rest.
        flipped: ``(B,)`` int64, triangles of the skin, joining ones included, whose normal opposes that of the rest
            pose.
    """

    stretch: Tensor
    stretch_mm: Tensor
    crease_deg: Tensor
    flipped: Tensor


@dataclass(frozen=True)
class SeamReport:
    """Seams ``before`` and ``after`` blending, and what blending moved where it must not, ``(B,)`` mm each.

    ``moved_in_parts_mm`` is the longest way of a part vertex; ``moved_outside_mm`` that of a rest vertex which is not
    one of the transition area's free ones. Both are exactly 0 for :class:`SeamBlender`.
    """

    before: SeamMeasures
    after: SeamMeasures
    moved_in_parts_mm: Tensor
    moved_outside_mm: Tensor

    def summary(self) -> dict[str, float]:
        """Mean, 95th percentile and maximum over faces and edges: ``{"stretch_mean_before": ..., ...}``.

        Of ``stretch``, ``stretch_mm`` and ``crease_deg``; ``flipped_before`` and ``flipped_after`` per face; and the
        largest ``moved_in_parts_mm`` and ``moved_outside_mm``.
        """
        result = {}
        for when, measures in (("before", self.before), ("after", self.after)):
            for name in ("stretch", "stretch_mm", "crease_deg"):
                values = getattr(measures, name).double().numpy()
                result[f"{name}_mean_{when}"] = float(values.mean())
                result[f"{name}_p95_{when}"] = float(np.percentile(values, 95))
                result[f"{name}_max_{when}"] = float(values.max())
            result[f"flipped_{when}"] = float(measures.flipped.double().mean())
        for name in ("moved_in_parts_mm", "moved_outside_mm"):
            result[name] = float(getattr(self, name).max())
        return result


@torch.no_grad()
def seam_report(
    layout: PartLayout,
    area: TransitionArea,
    composed: Tensor,
    blended: Tensor,
    rest: Tensor,
    reference: Tensor | None = None,
) -> SeamReport:
    """Measure the seams of B faces before and after blending.

    Args:
        layout: the labelled topology.
        area: the transition area, ``SeamBlender.area``.
        composed, rest: ``(B, V, 3)`` mm, as from ``SegmentModel.compose``.
        blended: ``(B, V, 3)`` mm, as from ``SeamBlender``.
        reference: ``(B, V, 3)`` or ``(1, V, 3)`` mm, faces without seams whose creases are natural, such as the shapes
            that were encoded; the template by default.

    Raises:
        ValueError: shapes do not fit, or no triangle joins a part with the rest.
    """
    if reference is None:
        reference = torch.from_numpy(layout.template)[None]
    _check(layout, composed, blended, rest, reference)
    edges = _edges(layout.faces)
    seam = _seam_edges(layout, edges)
    hinges = _hinges(layout, edges)
    skin = layout.part_faces("rest")
    natural = dihedral_degrees(reference, hinges)

    def measured(vertices: Tensor) -> SeamMeasures:
        length, at_rest = _lengths(vertices, seam), _lengths(rest, seam)
        bend = dihedral_degrees(vertices, hinges) - natural
        return SeamMeasures(
            stretch=(length / at_rest - 1).abs(),
            stretch_mm=(length - at_rest).abs(),
            crease_deg=((bend + 180) % 360 - 180).abs(),
            flipped=((_normals(vertices, skin) * _normals(rest, skin)).sum(-1) < 0).sum(1),
        )

    in_parts = torch.from_numpy(layout.labels != LABEL_IDS["rest"])
    outside = ~in_parts
    outside[area.vertex_ids[area.free]] = False
    moved = (blended - composed).norm(dim=-1)
    return SeamReport(
        measured(composed), measured(blended), moved[:, in_parts].amax(1), (moved * outside.to(moved)).amax(1)
    )


def dihedral_degrees(vertices: Tensor, hinges: Ids) -> Tensor:
    """Signed angle between the normals of the two triangles at each hinge, degrees ``(B, C)``, 0 where it is flat.

    ``vertices (B, V, 3)``; ``hinges (C, 4)``: an edge i, j, then the third vertices of its triangles (i, j, k) and
    (j, i, l). Positive at a ridge, negative in a fold.
    """
    i, j, k, m = (vertices[:, hinges[:, c]].double() for c in range(4))
    along = j - i
    left, right = torch.linalg.cross(along, k - i), torch.linalg.cross(-along, m - j)
    sine = (torch.linalg.cross(left, right) * along).sum(-1) / along.norm(dim=-1).clamp_min(1e-12)
    return torch.rad2deg(torch.atan2(sine, (left * right).sum(-1)))


def _edges(faces: Ids) -> Ids:
    """Directed edges with the third vertex of their triangle, ``(3F, 3)``: i, j, k."""
    return np.concatenate([faces[:, [0, 1, 2]], faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]])


def _seam_edges(layout: PartLayout, edges: Ids) -> Ids:
    """Edges ``(E, 2)``, once each, with one end in a part and the other in the rest."""
    is_rest = layout.labels == LABEL_IDS["rest"]
    across = edges[is_rest[edges[:, 0]] != is_rest[edges[:, 1]], :2]
    if len(across) == 0:
        raise ValueError("no triangle joins a part with the rest: there is no seam to measure")
    return np.unique(np.sort(across, axis=1), axis=0)


def _hinges(layout: PartLayout, edges: Ids) -> Ids:
    """``(C, 4)`` edges of the joining triangles and the third vertices on both sides; the mesh's rim has none."""
    is_rest = layout.labels == LABEL_IDS["rest"]
    inside = is_rest[edges].sum(axis=1)
    joining = (inside > 0) & (inside < 3)
    is_forward = edges[:, 0] < edges[:, 1]
    base = np.array([layout.n_vertices, 1])
    forward, backward = np.flatnonzero(is_forward), np.flatnonzero(~is_forward)
    _, one, other = np.intersect1d(edges[forward, :2] @ base, edges[backward, 1::-1] @ base, return_indices=True)
    left, right = forward[one], backward[other]
    wanted = joining[left] | joining[right]
    return np.column_stack([edges[left], edges[right, 2]])[wanted]


def _lengths(vertices: Tensor, edges: Ids) -> Tensor:
    return (vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]]).norm(dim=-1)


def _normals(vertices: Tensor, faces: Ids) -> Tensor:
    a, b, c = (vertices[:, faces[:, corner]] for corner in range(3))
    return torch.linalg.cross(b - a, c - a)


def _check(layout: PartLayout, composed: Tensor, blended: Tensor, rest: Tensor, reference: Tensor) -> None:
    expected = (len(composed), layout.n_vertices, 3)
    for name, vertices in (("composed", composed), ("blended", blended), ("rest", rest)):
        if vertices.shape != expected:
            raise ValueError(f"{name} has shape {tuple(vertices.shape)}: give {expected}, as composed has B faces")
    if reference.shape not in (expected, (1, *expected[1:])):
        raise ValueError(f"reference has shape {tuple(reference.shape)}: give {expected} or one face")

"""Which vertex belongs to which part, where the parts meet the rest, and which skin around them may be deformed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from segmodel._mesh import Ids, adjacency, boundary_vertices, component_ids, renumber, submesh, topology_hash
from segmodel.parts import LABEL_IDS, PARTS, REGIONS


@dataclass(frozen=True)
class TransitionArea:
    """The patch of skin that blending deforms, together with the part borders it hangs on (NEO-3DF section 3.4).

    Attributes:
        vertex_ids: ``(T,)`` int64, ascending ids in the whole mesh.
        faces: ``(F_T, 3)`` int64 triangles in local numbers (positions in ``vertex_ids``). None lies inside a part.
        handles: ``(K,)`` int64 local numbers of the vertices whose position is given: part borders, then outer ring.
        free: ``(T - K,)`` int64 local numbers of the vertices to solve for.
        n_part_handles: how many of ``handles`` are part borders; the remaining ones are the pinned outer ring.
        radius_mm: the radius the area was built with.
    """

    vertex_ids: Ids
    faces: Ids
    handles: Ids
    free: Ids
    n_part_handles: int
    radius_mm: float


@dataclass(frozen=True, eq=False)
class PartLayout:
    """Labels of a fixed topology and everything that follows from them. Build it with :meth:`from_labels`.

    Attributes:
        labels: ``(V,)`` int64, values of :data:`segmodel.parts.LABEL_IDS` from 1 (rest) to 6.
        faces: ``(F, 3)`` int64.
        template: ``(V, 3)`` float32, mm; distances and Laplacian weights are measured on it.
    """

    labels: Ids
    faces: Ids
    template: NDArray[np.float32]

    @classmethod
    def from_labels(cls, labels: ArrayLike, faces: ArrayLike, template: ArrayLike) -> PartLayout:
        """Check ``labels (V,)``, ``faces (F, 3)`` and ``template (V, 3)`` mm against each other and build the layout.

        Raises:
            ValueError: shapes disagree, a label or face index is out of range, a region is missing, or a part touches
                no rest vertex; the message says which one and what to do.
        """
        label_ids, triangles = np.asarray(labels), np.asarray(faces)
        points = np.ascontiguousarray(template, dtype=np.float32)
        _check_mesh(label_ids, triangles, points)
        layout = cls(label_ids.astype(np.int64), np.ascontiguousarray(triangles, dtype=np.int64), points)
        for part in PARTS:
            if len(layout.ring(part)) == 0:
                raise ValueError(
                    f"part {part!r} has no vertex next to a rest vertex (label 1), so it cannot be blended: "
                    "relabel its surroundings as rest"
                )
        return layout

    @property
    def n_vertices(self) -> int:
        """Number of mesh vertices V."""
        return len(self.labels)

    @property
    def topology_hash(self) -> str:
        """SHA-256 of the vertex count and faces; two meshes with equal hashes share vertex numbering."""
        return topology_hash(self.faces, self.n_vertices)

    def core(self, region: str) -> Ids:
        """Ascending ids of the vertices that carry the label of ``region``."""
        _check_region(region)
        return np.flatnonzero(self.labels == LABEL_IDS[region])

    def vertices(self, region: str) -> Ids:
        """Ascending ids of the vertices the model of ``region`` predicts.

        A part predicts its own vertices. The rest also predicts its version of the overlap ring, every part vertex
        with a rest neighbour, so that blending has a rest pose across the seam.
        """
        if region != "rest":
            return self.core(region)
        return np.union1d(self.core("rest"), np.flatnonzero(self._touches_rest & (self.labels != LABEL_IDS["rest"])))

    def ring(self, part: str) -> Ids:
        """Ascending ids of the vertices of ``part`` that have a rest neighbour (its interface to the skin)."""
        _check_part(part)
        return np.flatnonzero(self._touches_rest & (self.labels == LABEL_IDS[part]))

    def seam(self, part: str) -> Ids:
        """Ascending ids of the border of ``part``: mesh boundary of its own triangles, where it touches the rest.

        Border vertices that touch no rest triangle, such as those inside the mouth slit, are not part of the seam:
        nothing has to be blended there. On a mesh where every part vertex is in a triangle of its part, the seam is
        the ring.
        """
        return np.intersect1d(boundary_vertices(self.part_faces(part)), self.ring(part))

    def part_faces(self, region: str) -> Ids:
        """Triangles, in whole-mesh numbers, with all three vertices in ``vertices(region)``."""
        inside = np.zeros(self.n_vertices, bool)
        inside[self.vertices(region)] = True
        return submesh(self.faces, inside)

    def transition(self, radius_mm: float) -> TransitionArea:
        """Skin closer than ``radius_mm`` to a part border on the template, with its handles (NEO-3DF section 3.4).

        Part borders (the rings) are handles. So is the outer ring: the mesh boundary of area and parts together,
        which also pins every vertex of the mesh rim that lies inside. Vertices that no triangle of the area uses, and
        connected pieces that touch no part, would be undetermined or could never move: they are left out, hence
        unchanged by blending.

        Raises:
            ValueError: ``radius_mm`` is not a positive number, or no vertex is left to solve for.
        """
        if not (np.isfinite(radius_mm) and radius_mm > 0):
            raise ValueError(f"transition radius is {radius_mm} mm: give a positive number")
        is_rest = self.labels == LABEL_IDS["rest"]
        is_ring = self._touches_rest & ~is_rest
        near = is_rest & (self._distance_to_ring < radius_mm)
        faces = submesh(self.faces, near | is_ring)
        faces = faces[near[faces].any(axis=1)]
        used = np.zeros(self.n_vertices, bool)
        component = component_ids(faces, self.n_vertices)
        used[faces] = np.isin(component[faces], component[is_ring])
        faces = submesh(faces, used)

        rim = np.zeros(self.n_vertices, bool)
        rim[boundary_vertices(submesh(self.faces, near | ~is_rest))] = True
        vertex_ids = np.flatnonzero(used)
        part_handles = np.flatnonzero(is_ring[vertex_ids])
        outer = np.flatnonzero((rim & is_rest)[vertex_ids])
        free = np.flatnonzero((is_rest & ~rim)[vertex_ids])
        if len(free) == 0:
            raise ValueError(
                f"transition radius {radius_mm} mm leaves no vertex to deform: use a radius of several edge lengths"
            )
        return TransitionArea(
            vertex_ids=vertex_ids,
            faces=renumber(faces, vertex_ids, self.n_vertices),
            handles=np.concatenate([part_handles, outer]),
            free=free,
            n_part_handles=len(part_handles),
            radius_mm=float(radius_mm),
        )

    @cached_property
    def _touches_rest(self) -> NDArray[np.bool_]:
        """``(V,)`` mask: the vertex has a neighbour labelled rest."""
        is_rest = (self.labels == LABEL_IDS["rest"]).astype(np.int64)
        return (adjacency(self.faces, self.n_vertices).astype(np.int64) @ is_rest) > 0

    @cached_property
    def _distance_to_ring(self) -> NDArray[np.float64]:
        """``(V,)`` template distance in mm to the nearest part border vertex."""
        border = self._touches_rest & (self.labels != LABEL_IDS["rest"])
        return cKDTree(self.template[border]).query(self.template)[0]


def _check_region(region: str) -> None:
    if region not in REGIONS:
        raise ValueError(f"unknown region {region!r}: use one of {', '.join(REGIONS)}")


def _check_part(part: str) -> None:
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}: use one of {', '.join(PARTS)}")


def _check_mesh(labels: NDArray, faces: NDArray, template: NDArray[np.float32]) -> None:
    """Raise ValueError unless the three arrays describe one labelled triangle mesh with all six regions."""
    if template.ndim != 2 or template.shape[1] != 3:
        raise ValueError(f"template has shape {template.shape}: give (V, 3) positions in mm")
    if not np.isfinite(template).all():
        raise ValueError(
            f"template vertex {int(np.argwhere(~np.isfinite(template))[0, 0])} is not finite: repair the mesh"
        )
    n_vertices = len(template)
    if labels.shape != (n_vertices,):
        raise ValueError(f"labels has shape {labels.shape} but the template has {n_vertices} vertices: give one each")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels has dtype {labels.dtype}: give integer label ids")
    known = sorted(LABEL_IDS[region] for region in REGIONS)
    wrong = np.flatnonzero(~np.isin(labels, known))
    if len(wrong):
        raise ValueError(
            f"vertex {wrong[0]} has label {labels[wrong[0]]} ({len(wrong)} such vertices): vertex labels are 1 rest, "
            "2 eyebrows, 3 eyes, 4 nose, 5 upper_lip, 6 lower_lip; label unseen vertices as rest"
        )
    if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise ValueError(f"faces has shape {faces.shape} and dtype {faces.dtype}: give (F, 3) integers")
    if len(faces) == 0 or faces.min() < 0 or faces.max() >= n_vertices:
        bounds = "no rows" if len(faces) == 0 else f"indices {faces.min()} to {faces.max()}"
        raise ValueError(f"faces has {bounds} but must index the {n_vertices} template vertices from 0")
    for region in REGIONS:
        count = int((labels == LABEL_IDS[region]).sum())
        if count < 3:
            raise ValueError(
                f"region {region!r} (label {LABEL_IDS[region]}) has {count} vertices, at least 3 are needed: "
                "check the labels of this topology"
            )

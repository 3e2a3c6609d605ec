"""Where the controllers are measured: every rule resolved to vertex ids once, on a labelled template."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing._points import POINT_RULES, Template, Unresolved
from editing.catalogue import CONTROLLERS
from editing.parts import LABEL_IDS, PARTS, REGIONS


@dataclass(frozen=True)
class MeasurementLandmarks:
    """Vertex ids of all measuring points of one mesh topology.

    Attributes:
        n_vertices: V of the topology.
        points: point name -> ``(S, K)`` int64 vertex ids; S = 2 (subject's right, left) or 1 on the midline; the point
            is the mean of its K vertices.
        boxes: part -> int64 ids of the vertices whose bounding box is the part's; that of rest is the whole face's.
    """

    n_vertices: int
    points: dict[str, NDArray[np.int64]]
    boxes: dict[str, NDArray[np.int64]]

    @classmethod
    def from_template(cls, template: ArrayLike, labels: ArrayLike, landmarks68: ArrayLike) -> MeasurementLandmarks:
        """Resolve every measuring point on a template face.

        Args:
            template: ``(V, 3)`` neutral mean face in mm, +x to the subject's left, +y up, +z to the front.
            labels: ``(V,)`` label id per vertex (``LABEL_IDS``).
            landmarks68: ``(68,)`` vertex ids of the 68 landmarks in Multi-PIE order.

        Returns:
            The ids, usable on every face of this topology.

        Raises:
            ValueError: arrays that do not fit together, a mirrored or upside-down face, or a point that cannot be
                found; the message names the controller that needs it.
        """
        face = _checked_template(np.asarray(template), np.asarray(labels), np.asarray(landmarks68))
        points: dict[str, NDArray[np.int64]] = {}
        for controller in CONTROLLERS:
            for name in controller.points:
                try:
                    points[name] = POINT_RULES[name](face)
                except Unresolved as reason:
                    raise ValueError(f"cannot resolve {controller.key}: {reason}") from None
        _refuse_coinciding(points)
        boxes = {part: np.flatnonzero(face.labels == LABEL_IDS[part]) for part in PARTS}
        return cls(len(face.xyz), points, boxes)


def _checked_template(xyz: NDArray, labels: NDArray, landmarks: NDArray) -> Template:
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ValueError(f"template has shape {xyz.shape}: expected (V, 3)")
    if not np.isfinite(xyz).all():
        raise ValueError("template has coordinates that are not finite")
    if labels.shape != (len(xyz),):
        raise ValueError(f"labels have shape {labels.shape}: expected one id per vertex, ({len(xyz)},)")
    unknown = sorted(set(np.unique(labels).tolist()) - set(LABEL_IDS[region] for region in REGIONS))
    if unknown:
        raise ValueError(f"labels hold unknown ids {unknown}: vertex labels are 1 (rest) to 6 (lower lip)")
    if landmarks.shape != (68,):
        raise ValueError(f"landmarks68 has shape {landmarks.shape}: expected (68,) vertex ids")
    if landmarks.min() < 0 or landmarks.max() >= len(xyz):
        raise ValueError(
            f"landmarks68 runs from {landmarks.min()} to {landmarks.max()}: the mesh has {len(xyz)} vertices"
        )
    face = Template(xyz.astype(np.float64), labels.astype(np.int64), landmarks.astype(np.int64))
    first, last, chin, sellion = face.xyz[face.landmarks[[0, 16, 8, 27]]]
    if first[0] >= last[0]:
        raise ValueError("landmark 0 must be on the subject's right (smaller x than landmark 16): mirrored landmarks?")
    if chin[1] >= sellion[1]:
        raise ValueError("landmark 8 (chin) must be below landmark 27 (between the eyes): is +y up?")
    return face


def _refuse_coinciding(points: dict[str, NDArray[np.int64]]) -> None:
    for controller in CONTROLLERS:
        pairs = [points[name] for name in controller.points[:2]]
        if len(pairs) == 2 and any(set(a) == set(b) for a, b in zip(*(p.tolist() for p in pairs), strict=True)):
            both = " and ".join(controller.points[:2])
            raise ValueError(f"cannot resolve {controller.key}: {both} fall on the same vertex, the part is too thin")

"""What is to be said of a labelling: size, certainty, symmetry and pieces of every part."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .face_model import FaceModel
from .label_cleaner import COMPONENTS, label_pieces
from .label_transfer import PartLabels
from .parts import LABEL_IDS, REGIONS
from .subdivision import mesh_edges
from .voters import VertexVoters


@dataclass(frozen=True)
class RegionReport:
    """One region of a labelled mesh.

    Shares of nothing are NaN.

    Attributes:
        vertices: how many it has.
        area_mm2: of its surface on the mean face, mm^2; a triangle between regions is shared by its corners.
        confidence: mean over its vertices with votes, NaN without any.
        unsure: share of its vertices with votes whose confidence is below 0.6.
        unseen: share of its vertices without a vote, which follow their neighbours (inside of lips and nostrils).
        asymmetry: share of its vertices whose mirror image is of another region.
        pieces: connected pieces of its vertices.
        expected_pieces: how many a face has of them; None for rest.
    """

    vertices: int
    area_mm2: float
    confidence: float
    unsure: float
    unseen: float
    asymmetry: float
    pieces: int
    expected_pieces: int | None


_UNSURE = 0.6


def label_report(model: FaceModel, labels: PartLabels) -> dict[str, RegionReport]:
    """A report of every region, parts first.

    Raises:
        ValueError: the labels are of another mesh.
    """
    if len(labels.labels) != model.n_vertices:
        raise ValueError(f"{len(labels.labels)} labels but the face model has {model.n_vertices} vertices")
    voters, edges = VertexVoters(model), mesh_edges(model.faces)
    _, piece_label, _ = label_pieces(edges, labels.labels)
    area = vertex_areas(model)
    mirrored = labels.labels[voters.mirror]
    voted = labels.ballots.sum(1) > 0
    found = {}
    for region in REGIONS:
        number = LABEL_IDS[region]
        own = labels.labels == number
        confidence = labels.confidence[own & voted]
        found[region] = RegionReport(
            vertices=int(own.sum()),
            area_mm2=float(area[own].sum()),
            confidence=_mean(confidence),
            unsure=_mean(confidence < _UNSURE),
            unseen=_mean(~voted[own]),
            asymmetry=_mean(mirrored[own] != number),
            pieces=int((piece_label == number).sum()),
            expected_pieces=COMPONENTS.get(region),
        )
    return found


def vertex_areas(model: FaceModel) -> NDArray[np.float64]:
    """Area (V,), mm^2, that each vertex has of the mean face: a third of every triangle around it."""
    a, b, c = (model.mean[model.faces[:, corner]].astype(np.float64) for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return np.bincount(model.faces.ravel(), np.repeat(area / 3, 3), model.n_vertices).astype(np.float64)


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")

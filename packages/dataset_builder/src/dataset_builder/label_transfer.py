"""Part labels of a face mesh from parsing masks of faces whose shape and pose are known.

After Koizumi and Smith 2020, who let a 2D parser's labels vote on the vertices of a model; a per-part calibration makes
the voted parts as large as the masks' parts, which plain majorities shrink. The masks are those of fitted photographs
here; ``rendered_votes`` makes some of rendered faces.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .camera import CropCamera
from .face_model import FaceModel, Float32, Int64
from .label_cleaner import LabelCleaner
from .landmark_fit import FaceEstimate
from .parts import LABEL_IDS, PARTS
from .voters import TriangleVoters, VertexVoters, Voters, nearest_seen

Borders = Literal["between", "edges"]

_REST = LABEL_IDS["rest"]
_FEWEST_VOTES = 0.05  # of the photos; voters seen in fewer follow their nearest neighbour
_PART_IDS = np.array([LABEL_IDS[part] for part in PARTS])
_VOTERS: dict[str, type[VertexVoters] | type[TriangleVoters]] = {"between": VertexVoters, "edges": TriangleVoters}


@dataclass(frozen=True, eq=False)
class PartLabels:
    """Voted labels and how sure the vote was.

    Attributes:
        labels: (V,) int64, 1 rest, 2 eyebrows, 3 eyes, 4 nose, 5 upper lip, 6 lower lip.
        confidence: (V,) float32, share of the ballots that agree with the label (background counts as rest); 0 where
            nobody voted.
        ballots: (V, 7) float32, votes per label id, 0 (background) to 6, left and right of the face averaged.
        factors: per part, the number its votes were multiplied by.
        target_area: per part, mean area of the masks, pixels of the 224 crop.
        area: per part, mean area of the labelled surface as the photos' cameras see it, pixels of the 224 crop.
    """

    labels: Int64
    confidence: Float32
    ballots: Float32
    factors: dict[str, float]
    target_area: dict[str, float]
    area: dict[str, float]

    @property
    def counts(self) -> dict[str, int]:
        """Vertices per part."""
        return {part: int((self.labels == LABEL_IDS[part]).sum()) for part in PARTS}


def transfer_labels(
    model: FaceModel,
    masks: NDArray[np.uint8],
    estimate: FaceEstimate,
    *,
    ignore: NDArray[np.bool_] | None = None,
    restrict: Mapping[str, Int64] | None = None,
    calibrate: bool = True,
    borders: Borders = "between",
) -> PartLabels:
    """Part labels of the model's vertices from the masks of N fitted photos.

    Every visible vertex reads each mask bilinearly and adds the shares of the labels there to its ballot. Ballots are
    averaged over left and right; vertices hardly ever seen (inside of the lips, nostrils) take the ballot of the
    nearest seen vertex along the mesh. Vote shares are multiplied by a factor per part, found so that the surface of
    the part, as the cameras see it, is as large as the part in the masks on average; the largest label wins. Then
    ragged borders are smoothed by two majority passes over the one-ring, only the largest pieces of each part stay
    (two for eyebrows and eyes), and holes are filled.

    On a mesh with edges along the outlines of its parts, as the built-in face, a vertex on an outline gets half of the
    votes, so that chance decides. There ``borders="edges"`` lets the triangles vote in the place of the vertices; all
    the corners of a part's triangles are then the part's.

    Args:
        model: the face; its ``mirror`` is used where known, else the nearest vertex to the mirror image.
        masks: (N, S, S) uint8 label ids 0..6 in the crop's frame.
        estimate: coefficients and pose of the same N photos (:class:`LandmarkEstimator`).
        ignore: (N, S, S) bool, pixels without a vote (hair, hands, glasses), or None.
        restrict: part name -> the only vertex ids that may get this part, as the eye caps of the ICT face.
        calibrate: False leaves the plain majority.
        borders: "between" the vertices, or on "edges" of the mesh.

    Raises:
        ValueError: if shapes, the number of photos, a label id, ``borders``, or a name or id in ``restrict`` is wrong,
            or if no mask holds one of the parts.
        ImportError: if open3d is not installed (extra ``photos``).
    """
    _check_inputs(model, masks, estimate, ignore)
    if borders not in _VOTERS:
        raise ValueError(f"borders is {borders!r}; it must be 'between' or 'edges'")
    voters = _VOTERS[borders](model)
    allowed = voters.allowed(_allowed(model, restrict or {}))
    ballots, seen_area = _collect(model, voters, masks, estimate, ignore)

    pixel = (224 / masks.shape[1]) ** 2
    target = np.array([(masks == i).sum() for i in _PART_IDS]) * pixel / len(masks)
    if not target.all():
        raise ValueError(f"no mask holds {', '.join(p for p, t in zip(PARTS, target, strict=True) if not t)}")
    seen = ballots.sum(1) >= _FEWEST_VOTES * len(masks)
    if not seen.any():
        raise ValueError("no vertex is seen in enough photos to get a label; check the estimated poses")
    cleaner = LabelCleaner(voters.edges, len(voters.place))
    shares = _shares(ballots)[nearest_seen(voters.place, voters.edges, seen)] * allowed
    factors = np.ones(len(PARTS))
    if calibrate:
        factors = _calibrated(shares, seen_area, target, allowed, cleaner)
    voted = _label(shares, factors, allowed, cleaner)

    area = [float(seen_area[voted == i].sum()) for i in _PART_IDS]
    labels, ballots = voters.to_vertices(voted, ballots)
    return PartLabels(
        labels=labels,
        confidence=_confidence(ballots, labels),
        ballots=ballots.astype(np.float32),
        factors=dict(zip(PARTS, factors.tolist(), strict=True)),
        target_area=dict(zip(PARTS, target.tolist(), strict=True)),
        area=dict(zip(PARTS, area, strict=True)),
    )


def label_agreement(
    first: Int64, second: Int64, weights: NDArray[np.floating] | NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Per part, intersection over union of the vertices two labellings (V,) give it; 1 where neither has any.

    ``weights`` (V,) say how much each vertex counts: 1 by default, or its area, or whether it is seen at all.

    Raises:
        ValueError: if the two, or the weights, are not of one length.
    """
    if first.shape != second.shape:
        raise ValueError(f"labels of {first.shape} and {second.shape} vertices cannot be compared")
    weight = np.ones(first.shape) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != first.shape:
        raise ValueError(f"weights of shape {weight.shape} do not fit labels of {first.shape}")
    scores = {}
    for part in PARTS:
        a, b = first == LABEL_IDS[part], second == LABEL_IDS[part]
        union = weight[a | b].sum()
        scores[part] = float(weight[a & b].sum() / union) if union else 1.0
    return scores


def _collect(
    model: FaceModel,
    voters: Voters,
    masks: NDArray[np.uint8],
    estimate: FaceEstimate,
    ignore: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ballots (N, 7) and the mean area (N,), 224-pixels, that each voter has of the seen surface."""
    size = masks.shape[1]
    camera = CropCamera.of_size(size)
    ballots, seen_area = np.zeros((len(voters.place), 7)), np.zeros(len(voters.place))
    for row, mask in enumerate(masks):
        pixels, visible, area = voters.seen(estimate.posed(model, row), camera)
        seen_area += area * (224 / size) ** 2 / len(masks)
        _cast_votes(ballots, pixels, visible, mask, None if ignore is None else ignore[row])
    return (ballots + ballots[voters.mirror]) / 2, (seen_area + seen_area[voters.mirror]) / 2


def _cast_votes(
    ballots: NDArray[np.float64],
    pixels: NDArray[np.floating],
    visible: NDArray[np.bool_],
    mask: NDArray[np.uint8],
    ignore: NDArray[np.bool_] | None,
) -> None:
    size = len(mask)
    inside = visible & (pixels >= 0.5).all(1) & (pixels < size - 0.5).all(1)
    voting = np.flatnonzero(inside)
    corner = np.floor(pixels[voting] - 0.5).astype(np.int64)
    part_way = pixels[voting] - 0.5 - corner
    for across in (0, 1):
        for down in (0, 1):
            column, row = corner[:, 0] + across, corner[:, 1] + down
            column_share = part_way[:, 0] if across else 1 - part_way[:, 0]
            row_share = part_way[:, 1] if down else 1 - part_way[:, 1]
            share = column_share * row_share
            if ignore is not None:
                share = share * ~ignore[row, column]
            np.add.at(ballots, (voting, mask[row, column]), share)


def _shares(ballots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vote shares (V, 6): rest with background, then the parts."""
    total = np.maximum(ballots.sum(1, keepdims=True), 1e-12)
    return np.concatenate([ballots[:, :1] + ballots[:, 1:2], ballots[:, 2:]], 1) / total


def _label(
    shares: NDArray[np.float64], factors: NDArray[np.float64], allowed: NDArray[np.bool_], cleaner: LabelCleaner
) -> Int64:
    """Labels (V,) of the greatest weighed share, cleaned, and rest where the cleaned label is not allowed."""
    weighed = shares * np.concatenate([[1.0], factors])
    labels = cleaner(weighed.argmax(1).astype(np.int64) + 1)
    return np.where(allowed[np.arange(len(labels)), labels - 1], labels, _REST)


def _calibrated(
    shares: NDArray[np.float64],
    seen_area: NDArray[np.float64],
    target: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    cleaner: LabelCleaner,
    rounds: int = 40,
) -> NDArray[np.float64]:
    """Factors (5,) whose part areas come nearest to the target; a fixed point in the logarithm, damped in the end."""
    factors = np.ones(len(PARTS))
    best_misfit, best_factors = np.inf, factors
    for number in range(rounds):
        labels = _label(shares, factors, allowed, cleaner)
        area = np.array([seen_area[labels == i].sum() for i in _PART_IDS])
        misfit = np.log(np.maximum(area, 1) / target)
        if np.abs(misfit).max() < best_misfit:
            best_misfit, best_factors = np.abs(misfit).max(), factors
        if best_misfit < 0.005:
            break
        factors = np.clip(factors * np.exp(-misfit * (1.0 if number < rounds // 2 else 0.3)), 0.2, 5)
    return best_factors


def _confidence(ballots: NDArray[np.float64], labels: Int64) -> Float32:
    share = _shares(ballots)[np.arange(len(labels)), labels - 1]
    return share.astype(np.float32)


def _allowed(model: FaceModel, restrict: Mapping[str, Int64]) -> NDArray[np.bool_]:
    allowed = np.ones((model.n_vertices, 6), bool)
    for part, ids in restrict.items():
        if part not in PARTS:
            raise ValueError(f"restrict names {part!r}; the parts are {', '.join(PARTS)}")
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= model.n_vertices):
            raise ValueError(f"restrict[{part!r}] holds vertex {ids.max()}, the model has {model.n_vertices}")
        allowed[:, LABEL_IDS[part] - 1] = np.isin(np.arange(model.n_vertices), ids)
    return allowed


def _check_inputs(
    model: FaceModel, masks: NDArray[np.uint8], estimate: FaceEstimate, ignore: NDArray[np.bool_] | None
) -> None:
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or not len(masks):
        raise ValueError(f"masks must be (N, S, S) label ids with N of at least 1, got {masks.shape}")
    if masks.max() > 6:
        raise ValueError(f"masks hold label id {masks.max()}; the ids are 0..6")
    if len(estimate) != len(masks):
        raise ValueError(f"{len(masks)} masks but {len(estimate)} estimated faces")
    if ignore is not None and ignore.shape != masks.shape:
        raise ValueError(f"ignore has shape {ignore.shape}, masks {masks.shape}")
    if estimate.identity.shape[1] != model.n_identity or estimate.expression.shape[1] != model.n_expression:
        raise ValueError(
            f"the estimate has {estimate.identity.shape[1]} identity and {estimate.expression.shape[1]} expression "
            f"coefficients, the model {model.n_identity} and {model.n_expression}"
        )

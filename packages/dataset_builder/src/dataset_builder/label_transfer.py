"""Part labels of a face mesh from the parsing masks of fitted photos: every photo votes on the vertices it shows.

After Koizumi and Smith 2020, who let a 2D parser's labels vote on the vertices of a model; here the photos are real
and a per-part calibration makes the voted parts as large as the masks' parts, which plain majorities shrink.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from .camera import CropCamera
from .face_model import FaceModel, Float32, Int64
from .landmark_fit import FaceEstimate
from .parts import LABEL_IDS, PARTS
from .subdivision import mesh_edges
from .visibility import visible_vertices

COMPONENTS = {"eyebrows": 2, "eyes": 2, "nose": 1, "upper_lip": 1, "lower_lip": 1}
_REST = LABEL_IDS["rest"]
_FEWEST_VOTES = 0.05  # of the photos; vertices seen in fewer follow their nearest neighbour
_PART_IDS = np.array([LABEL_IDS[part] for part in PARTS])


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
) -> PartLabels:
    """Part labels of the model's vertices from the masks of N fitted photos.

    Every visible vertex reads each mask bilinearly and adds the shares of the labels there to its ballot. Ballots are
    averaged over left and right; vertices hardly ever seen (inside of the lips, nostrils) take the ballot of the
    nearest seen vertex along the mesh. Vote shares are multiplied by a factor per part, found so that the surface of
    the part, as the cameras see it, is as large as the part in the masks on average; the largest label wins. Then
    ragged borders are smoothed by two majority passes over the one-ring, only the largest pieces of each part stay
    (two for eyebrows and eyes), and holes are filled.

    Args:
        model: the face; its ``mirror`` is used where known, else the nearest vertex to the mirror image.
        masks: (N, S, S) uint8 label ids 0..6 in the crop's frame.
        estimate: coefficients and pose of the same N photos (:class:`LandmarkEstimator`).
        ignore: (N, S, S) bool, pixels without a vote (hair, hands, glasses), or None.
        restrict: part name -> the only vertex ids that may get this part, as the eye caps of the ICT face.
        calibrate: False leaves the plain majority.

    Raises:
        ValueError: if shapes, the number of photos, a label id, or a name or id in ``restrict`` is wrong, or if no
            mask holds one of the parts.
        ImportError: if open3d is not installed (extra ``photos``).
    """
    _check_inputs(model, masks, estimate, ignore)
    allowed = _allowed(model, restrict or {})
    mirror = model.mirror if model.mirror is not None else _nearest_mirror(model)
    ballots, seen_area = _collect(model, masks, estimate, ignore)
    ballots = (ballots + ballots[mirror]) / 2
    seen_area = (seen_area + seen_area[mirror]) / 2

    pixel = (224 / masks.shape[1]) ** 2
    target = np.array([(masks == i).sum() for i in _PART_IDS]) * pixel / len(masks)
    if not target.all():
        raise ValueError(f"no mask holds {', '.join(p for p, t in zip(PARTS, target, strict=True) if not t)}")
    cleaner = LabelCleaner(model.faces, model.n_vertices)
    voter = _nearest_voter(model, ballots.sum(1) >= _FEWEST_VOTES * len(masks))
    shares = _shares(ballots)[voter] * allowed
    factors = np.ones(len(PARTS))
    if calibrate:
        factors = _calibrated(shares, seen_area, target, allowed, cleaner)
    labels = _label(shares, factors, allowed, cleaner)

    area = [float(seen_area[labels == i].sum()) for i in _PART_IDS]
    return PartLabels(
        labels=labels,
        confidence=_confidence(ballots, labels),
        ballots=ballots.astype(np.float32),
        factors=dict(zip(PARTS, factors.tolist(), strict=True)),
        target_area=dict(zip(PARTS, target.tolist(), strict=True)),
        area=dict(zip(PARTS, area, strict=True)),
    )


def label_agreement(first: Int64, second: Int64) -> dict[str, float]:
    """Per part, intersection over union of the vertices two labellings (V,) give it; 1 where neither has any.

    Raises:
        ValueError: if the two are not of one length.
    """
    if first.shape != second.shape:
        raise ValueError(f"labels of {first.shape} and {second.shape} vertices cannot be compared")
    scores = {}
    for part in PARTS:
        a, b = first == LABEL_IDS[part], second == LABEL_IDS[part]
        union = (a | b).sum()
        scores[part] = float((a & b).sum() / union) if union else 1.0
    return scores


class LabelCleaner:
    """Smooths and tidies vertex labels (V,) on one mesh: see :func:`transfer_labels` for the rules.

    Args:
        faces: (F, 3) int64.
        n_vertices: V.
        passes: one-ring majority passes.
    """

    def __init__(self, faces: Int64, n_vertices: int, passes: int = 2) -> None:
        self._edges = mesh_edges(faces)
        rows, columns = np.concatenate([self._edges, self._edges[:, ::-1]]).T
        weights = np.ones(len(rows), np.float32)
        self._ring = sparse.csr_matrix((weights, (rows, columns)), (n_vertices, n_vertices))
        self._passes = passes

    def __call__(self, labels: Int64) -> Int64:
        """The cleaned labels, a new array."""
        for _ in range(self._passes):
            labels = self._majority(labels)
        return self._fill_holes(self._keep_largest(labels))

    def _majority(self, labels: Int64) -> Int64:
        one_hot = np.eye(7, dtype=np.float32)[labels]
        own = 1.5  # a vertex changes only where its ring outvotes it by two
        return np.asarray(self._ring @ one_hot + own * one_hot).argmax(1)

    def _pieces(self, labels: Int64) -> tuple[Int64, Int64, Int64]:
        """Piece of each vertex (V,), and label and size of each piece: connected vertices of one label."""
        within = self._edges[labels[self._edges[:, 0]] == labels[self._edges[:, 1]]]
        n = len(labels)
        graph = sparse.csr_matrix((np.ones(len(within), np.int8), (within[:, 0], within[:, 1])), (n, n))
        count, piece = connected_components(graph, directed=False)
        label = np.zeros(count, np.int64)
        label[piece] = labels
        return piece.astype(np.int64), label, np.bincount(piece)

    def _keep_largest(self, labels: Int64) -> Int64:
        piece, label, size = self._pieces(labels)
        for part in PARTS:
            own = np.flatnonzero(label == LABEL_IDS[part])
            largest_first = own[np.argsort(-size[own], kind="stable")]
            label[largest_first[COMPONENTS[part] :]] = _REST
        return label[piece]

    def _fill_holes(self, labels: Int64) -> Int64:
        """Give a part the pieces of rest that touch no other part, the main piece excepted."""
        piece, label, size = self._pieces(labels)
        across = piece[self._edges]
        across = across[across[:, 0] != across[:, 1]]
        across = np.concatenate([across, across[:, ::-1]])
        lowest, highest = np.full(len(label), 9, np.int64), np.zeros(len(label), np.int64)
        np.minimum.at(lowest, across[:, 0], label[across[:, 1]])
        np.maximum.at(highest, across[:, 0], label[across[:, 1]])
        hole = (label == _REST) & (lowest == highest)
        rest = np.flatnonzero(label == _REST)
        if len(rest):
            hole[rest[np.argmax(size[rest])]] = False
        label[hole] = lowest[hole]
        return label[piece]


def _collect(
    model: FaceModel, masks: NDArray[np.uint8], estimate: FaceEstimate, ignore: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ballots (V, 7) and the mean area (V,), 224-pixels, that each vertex has of the seen surface."""
    size = masks.shape[1]
    camera = CropCamera.of_size(size)
    ballots, seen_area = np.zeros((model.n_vertices, 7)), np.zeros(model.n_vertices)
    for row, mask in enumerate(masks):
        vertices = estimate.posed(model, row)
        visible = visible_vertices(vertices, model.faces, camera)
        pixels = camera.project(vertices)
        seen_area += _vertex_areas(pixels, visible, model.faces) * (224 / size) ** 2 / len(masks)
        _cast_votes(ballots, pixels, visible, mask, None if ignore is None else ignore[row])
    return ballots, seen_area


def _cast_votes(
    ballots: NDArray[np.float64],
    pixels: NDArray[np.floating],
    visible: NDArray[np.bool_],
    mask: NDArray[np.uint8],
    ignore: NDArray[np.bool_] | None,
) -> None:
    size = len(mask)
    inside = visible & (pixels >= 0.5).all(1) & (pixels < size - 0.5).all(1)
    voters = np.flatnonzero(inside)
    corner = np.floor(pixels[voters] - 0.5).astype(np.int64)
    part_way = pixels[voters] - 0.5 - corner
    for across in (0, 1):
        for down in (0, 1):
            column, row = corner[:, 0] + across, corner[:, 1] + down
            column_share = part_way[:, 0] if across else 1 - part_way[:, 0]
            row_share = part_way[:, 1] if down else 1 - part_way[:, 1]
            share = column_share * row_share
            if ignore is not None:
                share = share * ~ignore[row, column]
            np.add.at(ballots, (voters, mask[row, column]), share)


def _vertex_areas(pixels: NDArray[np.floating], visible: NDArray[np.bool_], faces: Int64) -> NDArray[np.float64]:
    """A third of the projected area of each facing triangle, as far as its corners are visible, to each corner (V,)."""
    a, b, c = (pixels[faces[:, i]].astype(np.float64) for i in range(3))
    side, other = b - a, c - a
    area = np.maximum(-(side[:, 0] * other[:, 1] - side[:, 1] * other[:, 0]) / 2, 0)
    shown = area * visible[faces].mean(1)
    return np.bincount(faces.ravel(), np.repeat(shown / 3, 3), len(pixels)).astype(np.float64)


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


def _nearest_voter(model: FaceModel, seen: NDArray[np.bool_]) -> Int64:
    """For each vertex (V,) the seen vertex nearest along the edges of the mean shape; itself if seen or cut off."""
    if not seen.any():
        raise ValueError("no vertex is seen in enough photos to get a label; check the estimated poses")
    edges = mesh_edges(model.faces)
    length = np.linalg.norm(model.mean[edges[:, 0]] - model.mean[edges[:, 1]], axis=-1)
    graph = sparse.csr_matrix((length, (edges[:, 0], edges[:, 1])), (model.n_vertices, model.n_vertices))
    _, _, source = dijkstra(
        graph, directed=False, indices=np.flatnonzero(seen), return_predecessors=True, min_only=True
    )
    return np.where(source >= 0, source, np.arange(model.n_vertices)).astype(np.int64)


def _nearest_mirror(model: FaceModel) -> Int64:
    return cKDTree(model.mean).query(model.mean * [-1, 1, 1])[1].astype(np.int64)


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

"""Tidying of labels on a mesh: ragged borders, stray pieces, holes."""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from .face_model import Int64
from .parts import LABEL_IDS, PARTS

COMPONENTS = {"eyebrows": 2, "eyes": 2, "nose": 1, "upper_lip": 1, "lower_lip": 1}
_REST = LABEL_IDS["rest"]


class LabelCleaner:
    """Smooths and tidies the labels (N,) of the nodes of a graph, as the vertices or the triangles of a mesh.

    Majority passes over each node's neighbours smooth the borders, of every part the largest pieces stay (two of
    eyebrows and eyes, one of the others), and holes are filled.

    Args:
        edges: (E, 2) int64, neighbouring nodes, each pair once.
        n: number of nodes.
        passes: majority passes.
    """

    def __init__(self, edges: Int64, n: int, passes: int = 2) -> None:
        self._edges = edges
        rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
        self._ring = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (n, n))
        self._passes = passes

    def __call__(self, labels: Int64) -> Int64:
        """The cleaned labels, a new array."""
        for _ in range(self._passes):
            labels = self._majority(labels)
        return self._fill_holes(self._keep_largest(labels))

    def _majority(self, labels: Int64) -> Int64:
        one_hot = np.eye(7, dtype=np.float32)[labels]
        own = 1.5  # a node changes only where its neighbours outvote it by two
        return np.asarray(self._ring @ one_hot + own * one_hot).argmax(1)

    def _keep_largest(self, labels: Int64) -> Int64:
        piece, label, size = label_pieces(self._edges, labels)
        for part in PARTS:
            own = np.flatnonzero(label == LABEL_IDS[part])
            largest_first = own[np.argsort(-size[own], kind="stable")]
            label[largest_first[COMPONENTS[part] :]] = _REST
        return label[piece]

    def _fill_holes(self, labels: Int64) -> Int64:
        """Give a part the pieces of rest that touch no other part, the main piece excepted."""
        piece, label, size = label_pieces(self._edges, labels)
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


def label_pieces(edges: Int64, labels: Int64) -> tuple[Int64, Int64, Int64]:
    """Connected nodes of one label: the piece of each node (N,), and label and size of each piece."""
    within = edges[labels[edges[:, 0]] == labels[edges[:, 1]]]
    n = len(labels)
    graph = sparse.csr_matrix((np.ones(len(within), np.int8), (within[:, 0], within[:, 1])), (n, n))
    count, piece = connected_components(graph, directed=False)
    label = np.zeros(count, np.int64)
    label[piece] = labels
    return piece.astype(np.int64), label, np.bincount(piece)

"""What offsets and blending are for (NEO-3DF figure 7): one nose edit in full, without offsets, and without blending.

Without offsets a part is learned where it stands in the face, and its position gets into the latents and the controls.
The part VAEs are learned about their box centres, so the model without offsets is a PCA of noses as they stand,
controlled by the tip's place in the face; beside it stands the same PCA of noses about their centres. Faces differ in
the nose only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds
from torch import Tensor

from editing import ControllerMap, MeasurementLandmarks, controller_names, measure
from segmodel import LinearShapes, PartLayout, box_centres, recentre

from ..methods import OURS
from ..run_model import PartFace, PartFaceModel

SIGMA = 3.0
NOSE, CONTROL = "nose", "tip_height"
CENTRED = ("tip_height", "tip_depth")
"""Controls measured from the box centre in y and z: in a model without offsets, from the origin of the face."""


@dataclass(frozen=True)
class NosePca:
    """Principal components of noses (n, 3), as they stand or, if ``centred``, about their box centres in y and z.

    ``mean`` (3n,) mm; ``axes`` (D, 3n) mm per standard deviation.
    """

    mean: Tensor
    axes: Tensor
    centred: bool

    @classmethod
    def fit(cls, noses: Tensor, dim: int, *, centred: bool) -> "NosePca":
        """The first ``dim`` components of noses (N, n, 3), fewer where the noses do not vary in as many directions."""
        rows = (recentre(noses)[0] if centred else noses).flatten(1)
        mean = rows.mean(dim=0)
        away = (rows - mean).numpy()
        largest = min(away.shape)
        _, lengths, axes = svds(away, k=min(dim, largest - 1), v0=np.ones(largest, away.dtype))
        varying = lengths > 1e-4 * lengths.max()
        scaled = (axes * lengths[:, None] / np.sqrt(len(away)))[varying]
        return cls(mean, torch.from_numpy(scaled.astype(np.float32)), centred)

    def encode(self, noses: Tensor) -> Tensor:
        """Latents (N, D) of noses (N, n, 3), in standard deviations."""
        rows = (recentre(noses)[0] if self.centred else noses).flatten(1)
        return (rows - self.mean) @ self.axes.T / self.axes.square().sum(dim=1)

    def decode(self, latents: Tensor, centres: Tensor) -> Tensor:
        """Noses (N, n, 3); ``centres`` (N, 2) say where centred ones go, the others know it themselves."""
        noses = (self.mean + latents @ self.axes).view(len(latents), -1, 3)
        return noses + torch.nn.functional.pad(centres, (1, 0))[:, None] if self.centred else noses


def fitted_rows(
    pca: NosePca, noses: Tensor, template: Tensor, layout: PartLayout, points: MeasurementLandmarks, ridge: float
) -> Tensor:
    """Movement (M, D) of the latents by one sigma of each nose control, fitted on the model's own noses (N, n, 3)."""
    latents, centres = pca.encode(noses), recentre(noses)[1]
    faces = template.expand(len(noses), -1, -1).clone()
    faces[:, layout.vertices(NOSE)] = pca.decode(latents, centres)
    measured = measure(faces.numpy(), points)[NOSE]
    if not pca.centred:
        columns = [controller_names(NOSE).index(name) for name in CENTRED]
        measured[:, columns] += recentre(faces[:, layout.vertices(NOSE)])[1].double().numpy()
    fitted = ControllerMap.fit({NOSE: measured}, {NOSE: latents.numpy()}, ridge=ridge)
    return torch.from_numpy(fitted.rows(NOSE)).float()


@dataclass(frozen=True)
class NoseEdit:
    """The nose tip 3 sigma up on B faces, by one way of making noses.

    ``face`` (V, 3): the first face, edited. In mm, (B,) each: ``translation``, the length of the nose's mean
    displacement; ``drift``, how far its box centre went; ``lift``, how far up its tip went; and ``gap``, by how much
    the edge between nose and skin that is worst off is longer or shorter than in the skin of the rest decoder.
    """

    title: str
    offsets: bool
    blended: bool
    face: NDArray[np.float32]
    translation: NDArray[np.float32]
    drift: NDArray[np.float32]
    lift: NDArray[np.float32]
    gap: NDArray[np.float32]

    @property
    def name(self) -> str:
        """As tables name it."""
        placed, seams = "" if self.offsets else " without offsets", "" if self.blended else ", unblended"
        return f"{self.title}{placed}{seams}"


@torch.no_grad()
def nose_edits(
    model: PartFaceModel,
    controllers: ControllerMap,
    points: MeasurementLandmarks,
    faces: Tensor,
    shapes: LinearShapes,
    ridge: float,
) -> list[NoseEdit]:
    """The edit on faces (B, V, 3) by our part VAE and by both PCAs, learned from ``shapes``, blended and not."""
    layout = model.segments.layout
    ids = layout.vertices(NOSE)
    start = model.encode(faces)
    composed, rest = model.compose(start.latents, start.offsets)
    edges = _seam_edges(layout)
    edits = []
    for (title, offsets), (before, after) in _noses(model, controllers, points, faces, start, shapes, ridge).items():
        moved = after - before
        translation = moved.mean(dim=1).norm(dim=-1).numpy()
        drift = (box_centres(after) - box_centres(before)).norm(dim=-1).numpy()
        lift = moved[:, np.searchsorted(ids, points.points["nose_tip"][0]), 1].mean(dim=1).numpy()
        opened = composed.index_copy(1, torch.from_numpy(ids), after)
        for blended in (False, True):
            whole = model.blender(opened, rest) if blended else opened
            gap = (_lengths(whole, edges) - _lengths(rest, edges)).abs().amax(dim=1).numpy()
            edits.append(NoseEdit(title, offsets, blended, whole[0].numpy(), translation, drift, lift, gap))
    return edits


def _noses(
    model: PartFaceModel,
    controllers: ControllerMap,
    points: MeasurementLandmarks,
    faces: Tensor,
    start: PartFace,
    shapes: LinearShapes,
    ridge: float,
) -> Mapping[tuple[str, bool], tuple[Tensor, Tensor]]:
    """By (what makes the noses, whether about their centres): noses (B, n, 3) before and after the edit."""
    layout, column = model.segments.layout, controllers.position(NOSE, CONTROL)
    ids = layout.vertices(NOSE)
    row = torch.from_numpy(SIGMA * controllers.rows(NOSE)[column]).float()
    both = [{**start.latents, NOSE: start.latents[NOSE] + move} for move in (0 * row, row)]
    before, after = (model.compose(latents, start.offsets)[0][:, ids] for latents in both)
    noses = {(OURS, True): (before, after)}
    own, learned = faces[:, ids], shapes.region(ids).vertices(slice(None))
    template = torch.from_numpy(layout.template)
    for centred in (True, False):
        pca = NosePca.fit(learned, model.segments.latent_dims[NOSE], centred=centred)
        move = SIGMA * fitted_rows(pca, learned, template, layout, points, ridge)[column]
        z, centres = pca.encode(own), recentre(own)[1]
        noses["part PCA", centred] = (pca.decode(z, centres), pca.decode(z + move, centres))
    return noses


def _seam_edges(layout: PartLayout) -> NDArray[np.int64]:
    """Edges (E, 2) that join a vertex of the nose with one of the rest."""
    edges = np.concatenate([layout.faces[:, [0, 1]], layout.faces[:, [1, 2]], layout.faces[:, [2, 0]]])
    is_nose, is_rest = (np.isin(edges, layout.core(region)) for region in (NOSE, "rest"))
    across = (is_nose[:, 0] & is_rest[:, 1]) | (is_rest[:, 0] & is_nose[:, 1])
    return np.unique(np.sort(edges[across], axis=1), axis=0)


def _lengths(vertices: Tensor, edges: NDArray[np.int64]) -> Tensor:
    return (vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]]).norm(dim=-1)

"""What a finished run knows about faces, put together: face model, part models, blending, controllers, networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset_builder import FaceEncoder, FaceModel, load_encoder, load_face_model
from editing import ControllerMap, MeasurementLandmarks
from fitting import apply_pose
from segmodel import ImageRegressors, OffsetRegressor, SeamBlender, SegmentModel, box_centres

from .contracts import PARTS
from .controller_table import read_controllers
from .part_modes import read_directions

Latents = dict[str, Tensor]


@dataclass(frozen=True)
class Pose:
    """Expression (B, Ne), angles (B, 3) in radians and translation (B, 3) in mm of B faces."""

    expression: Tensor
    angles: Tensor
    translation: Tensor

    def rows(self, rows: slice) -> "Pose":
        """The same of some of the faces."""
        return Pose(self.expression[rows], self.angles[rows], self.translation[rows])


@dataclass(frozen=True)
class PartFace:
    """What makes a neutral face: latents {region: (B, D)} and part offsets (B, 5, 2), mm in y and z."""

    latents: Latents
    offsets: Tensor

    def rows(self, rows: slice) -> "PartFace":
        """The same of some of the faces."""
        return PartFace({region: z[rows] for region, z in self.latents.items()}, self.offsets[rows])


@dataclass(frozen=True)
class PartFaceModel:
    """Face model, its parts and their seams: from latents to vertices.

    ``directions``: for each part, linear displacements (E, n, 3) of its n vertices, in mm per unit, that its decoder
    does not have; their E coefficients follow the decoder's numbers in the part's latent.
    """

    face_model: FaceModel
    segments: SegmentModel
    directions: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def blender(self) -> SeamBlender:
        """Seam blending with three solves, NEO-3DF's count."""
        return self.segments.blender

    @cached_property
    def faces(self) -> Tensor:
        """Triangles (F, 3) int64."""
        return torch.from_numpy(self.face_model.faces)

    @cached_property
    def labels(self) -> Tensor:
        """Part labels (V,) int64."""
        return torch.from_numpy(self.segments.layout.labels)

    @cached_property
    def ex_basis(self) -> Tensor:
        """Expression basis (Ne, 3V) float32, mm."""
        basis = self.face_model.ex_basis
        return torch.from_numpy(np.ascontiguousarray(basis.reshape(-1, basis.shape[2]).T))

    @cached_property
    def latent_dims(self) -> dict[str, int]:
        """Size of each region's latent, directions included."""
        return {r: d + self.n_directions(r) for r, d in self.segments.latent_dims.items()}

    def n_directions(self, region: str) -> int:
        """How many directions a region has beside its decoder."""
        return len(self.directions[region]) if region in self.directions else 0

    def padded(self, latents: Latents) -> Latents:
        """Latents with directions, at zero where they were left out."""
        return {r: torch.nn.functional.pad(z, (0, self.latent_dims[r] - z.shape[1])) for r, z in latents.items()}

    def encode(self, vertices: Tensor) -> PartFace:
        """Latents of neutral shapes (B, V, 3) and the true box centres of their parts as offsets."""
        centres = [box_centres(vertices[:, self.segments.layout.vertices(part)]) for part in PARTS]
        return PartFace(self.padded(self.segments.encode(vertices)), torch.stack(centres, 1))

    def compose(self, latents: Latents, offsets: Tensor, skin: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The parts in the rest, and the rest alone, both (B, V, 3): see ``SegmentModel.compose``.

        ``skin`` (B, n, 3): the decoded rest, where it is at hand.
        """
        dims, full = self.segments.latent_dims, self.padded(latents)
        composed, rest = self.segments.compose({r: z[:, : dims[r]] for r, z in full.items()}, offsets, rest=skin)
        for part, directions in self.directions.items():
            ids = torch.from_numpy(self.segments.layout.vertices(part))
            moved = full[part][:, dims[part] :] @ directions.flatten(1)
            composed = composed.index_add(1, ids, moved.view(len(composed), -1, 3))
        return composed, rest

    def neutral(self, face: PartFace, blender: SeamBlender | None, skin: Tensor | None = None) -> Tensor:
        """Vertices (B, V, 3) in mm; seams are left open without a blender. ``skin``: see `compose`."""
        composed, rest = self.compose(face.latents, face.offsets, skin)
        return composed if blender is None else blender(composed, rest)

    def posed(self, neutral: Tensor, pose: Pose) -> Tensor:
        """Camera-frame vertices (B, V, 3): expression added, then rotated and moved."""
        moved = neutral + (pose.expression @ self.ex_basis).view(len(pose.expression), -1, 3)
        return apply_pose(moved, pose.angles, pose.translation)


def load_run_face_model(inputs: Mapping[str, Path]) -> FaceModel:
    """The face model that build_dataset kept."""
    return load_face_model(inputs["build_dataset"] / "face_model.npz")


def load_part_face_model(inputs: Mapping[str, Path]) -> PartFaceModel:
    """From the finished build_dataset and train_segments stages, and learn_modes if it is among them."""
    face_model, segments = load_run_face_model(inputs), SegmentModel.load(inputs["train_segments"] / "model")
    if "learn_modes" not in inputs:
        return PartFaceModel(face_model, segments)
    directions = read_directions(inputs["learn_modes"], segments.layout, face_model.topology_hash())
    return PartFaceModel(face_model, segments, directions)


@dataclass(frozen=True)
class Network:
    """NEO-3DF's image network: an encoder of aligned crops, one regressor per region, and the offset regressor."""

    encoder: FaceEncoder
    regressors: ImageRegressors
    offsets: OffsetRegressor

    @torch.no_grad()
    def __call__(self, crops: NDArray[np.uint8], five_points: NDArray[np.floating]) -> PartFace:
        """Latents and offsets of crops (B, 224, 224, 3) with five points (B, 5, 2) in crop pixels."""
        latents = self.regressors(torch.from_numpy(self.encoder.encode(crops, five_points)))
        return PartFace(latents, self.offsets(latents["rest"]))


def load_run_encoder(folder: Path, name: str) -> FaceEncoder:
    """The encoder of a finished stage: with the weights kept in its folder, else those of the asset."""
    kept = sorted(folder.glob("encoder.*"))
    return load_encoder(name, kept[0] if kept else None)


def load_network(inputs: Mapping[str, Path], encoder: str, *, fine_tuned: bool) -> Network:
    """The image network, before or after fine-tuning, which keeps an encoder of its own if it trained it."""
    pretrained = inputs["train_regressors"]
    folder = inputs["fine_tune"] if fine_tuned else pretrained
    offsets = SegmentModel.load(inputs["train_segments"] / "model").offset_regressor
    if fine_tuned:
        offsets.load_state_dict(torch.load(folder / "offsets.pt", weights_only=True))
    regressors = ImageRegressors.load(folder / "regressors.safetensors")
    encoder_folder = folder if any(folder.glob("encoder.*")) else pretrained
    return Network(load_run_encoder(encoder_folder, encoder), regressors, offsets)


def load_controllers(inputs: Mapping[str, Path], model: PartFaceModel) -> tuple[ControllerMap, MeasurementLandmarks]:
    """Controller map of the finished fit_controllers stage, and the measuring points of the topology.

    A control moves none of the model's directions.
    """
    return read_controllers(inputs["fit_controllers"], model.latent_dims), measuring_points(model)


def measuring_points(model: PartFaceModel) -> MeasurementLandmarks:
    """Where the 30 controllers are measured on this topology."""
    return MeasurementLandmarks.from_template(
        model.face_model.mean, model.segments.layout.labels, model.face_model.landmarks68
    )


def part_slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where each part's numbers lie in one row that holds them all, in the order of PARTS."""
    ends = np.cumsum([0, *(sizes[part] for part in PARTS)])
    return {part: slice(int(a), int(b)) for part, a, b in zip(PARTS, ends[:-1], ends[1:], strict=True)}

"""Part faces to fit in the benchmarks: a face model, its part models, and the way from fit variables to vertices."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset_builder import LABEL_IDS, PARTS, FaceModel, load_face_model
from fitting import Variable, apply_pose
from segmodel import (
    LinearShapes,
    OffsetSettings,
    PartLayout,
    SeamBlender,
    SegmentModel,
    VaeSettings,
    train_offset_regressor,
    train_segment_vaes,
)

Values = dict[str, Tensor]

EXPRESSION_UNIT, ANGLE_UNIT, TRANSLATION_UNIT = 0.3, 0.02, torch.tensor([1.0, 1.0, 10.0])


@dataclass(frozen=True)
class PartFaces:
    """B faces of one model: their latents, part offsets, and the pose they are seen in."""

    face_model: FaceModel
    segments: SegmentModel
    latents: Values
    offsets: Tensor
    angles: Tensor

    @cached_property
    def ex_basis(self) -> Tensor:
        """(Ne, 3V) float32 mm."""
        basis = self.face_model.ex_basis
        return torch.from_numpy(np.ascontiguousarray(basis.reshape(-1, basis.shape[2]).T)).to(self.offsets.device)

    @cached_property
    def rest(self) -> Tensor:
        """Vertices of the rest region, which no variable changes."""
        return self.segments.decode_part("rest", self.latents["rest"])

    @property
    def faces(self) -> Tensor:
        """(F, 3) int64."""
        return torch.from_numpy(self.face_model.faces)

    @property
    def labels(self) -> Tensor:
        """(V,) int64."""
        return torch.from_numpy(self.segments.layout.labels)

    def compose(self, values: Values) -> tuple[Tensor, Tensor]:
        """Composed and rest vertices (B, V, 3), see `SegmentModel.compose`.

        ``values`` may hold "latents" (B, sum D), added to those of the parts, and "offsets", mm, added to the places of
        the parts: (B, 5 * 2) y and z, or (B, 5 * 3) x, y and z.
        """
        moved = dict(self.latents)
        if "latents" in values:
            sizes = [self.latents[part].shape[1] for part in PARTS]
            for part, change in zip(PARTS, values["latents"].split(sizes, 1), strict=True):
                moved[part] = moved[part] + change
        if "offsets" not in values:
            return self.segments.compose(moved, self.offsets, rest=self.rest)
        shifts = values["offsets"].view(len(self.offsets), len(PARTS), -1)
        composed, rest = self.segments.compose(moved, self.offsets + shifts[..., -2:], rest=self.rest)
        if shifts.shape[2] == 2:
            return composed, rest
        sideways = torch.nn.functional.pad(shifts[..., :1], (0, 2, 1, 0))
        return composed + sideways[:, (self.labels - LABEL_IDS["rest"]).clamp_min(0)], rest

    def pose(self, neutral: Tensor, values: Values) -> Tensor:
        """Expression and pose of neutral vertices (B, V, 3)."""
        moved = neutral
        if "expression" in values:
            moved = moved + (values["expression"] @ self.ex_basis).view(len(neutral), -1, 3)
        return apply_pose(
            moved, values.get("angles", self.angles), values.get("translation", torch.zeros_like(self.angles))
        )

    def shape_fn(self, blender: SeamBlender | None) -> Callable[[Values], Tensor]:
        """{name: (B, n)} -> camera-frame vertices (B, V, 3), blended if there is a blender."""

        def shape(values: Values) -> Tensor:
            composed, rest = self.compose(values)
            return self.pose(composed if blender is None else blender(composed, rest), values)

        return shape

    def variables(self) -> dict[str, Variable]:
        """Every variable a fit can have, from these faces on: latents, (y, z) offsets, expression and pose."""
        n = len(self.offsets)
        device = self.offsets.device
        std = torch.cat([self.segments.latent_std[part] for part in PARTS])
        found = {
            "latents": Variable(torch.zeros(n, len(std), device=device), std, -3 * std, 3 * std),
            "offsets": Variable(torch.zeros(n, 2 * len(PARTS), device=device)),
            "angles": Variable(self.angles, ANGLE_UNIT),
            "translation": Variable(torch.zeros(n, 3, device=device), TRANSLATION_UNIT),
        }
        if self.face_model.n_expression:
            low, high = torch.from_numpy(self.face_model.ex_range).float().T
            start = torch.zeros(n, self.face_model.n_expression).clamp(low, high).to(device)
            found["expression"] = Variable(start, EXPRESSION_UNIT, low, high)
        return found

    def rows(self, rows: slice) -> "PartFaces":
        """Some of the faces."""
        latents = {region: z[rows] for region, z in self.latents.items()}
        return PartFaces(self.face_model, self.segments, latents, self.offsets[rows], self.angles[rows])

    def to(self, device: str) -> "PartFaces":
        """The same faces with their tensors on a device; the part models are to be moved by the caller."""
        latents = {region: z.to(device) for region, z in self.latents.items()}
        return PartFaces(self.face_model, self.segments, latents, self.offsets.to(device), self.angles.to(device))


def train_parts(name: str, n_shapes: int = 2000) -> tuple[FaceModel, SegmentModel]:
    """PCA part models of a procedural face, in seconds: "synthetic" has 6k vertices, "synthetic-35k" as many as BFM."""
    model = load_face_model(name)
    layout = PartLayout.from_labels(model.labels, model.faces, model.mean)
    shapes = LinearShapes(model.mean, model.id_basis, model.sample(n_shapes, 0))
    segments, _ = train_segment_vaes(layout, shapes, VaeSettings(init="pca", epochs=0))
    train_offset_regressor(segments, shapes, OffsetSettings())
    return model, segments.eval().requires_grad_(False)


def load_parts(run: Path) -> tuple[FaceModel, SegmentModel]:
    """Face model and part models of a finished run folder, such as runs/ict."""
    segments, dataset = (
        max(run.glob(f"{stage}-*"), key=lambda folder: folder.stat().st_mtime)
        for stage in ("train_segments", "build_dataset")
    )
    return load_face_model(dataset / "face_model.npz"), SegmentModel.load(segments / "model").requires_grad_(False)


def sample_faces(model: FaceModel, segments: SegmentModel, n: int, seed: int, *, yaw: float = 0.0) -> PartFaces:
    """n random faces of a model at one yaw in radians."""
    latents = segments.encode(torch.from_numpy(model.shape(model.sample(n, seed))))
    angles = torch.tensor([[0.0, float(yaw), 0.0]] * n)
    return PartFaces(model, segments, latents, segments.offsets(latents["rest"]), angles)

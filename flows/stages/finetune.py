"""fine_tune: encoder, image regressors and offsets against 2D parsing, through the rasteriser (NEO-3DF eq. 2)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dataset_builder import FaceEncoder, FaceModel, SmallEncoder, TorchEncoder, TrainableEncoder
from fitting import PartRenderer, soften
from segmodel import FineTuneReport, FineTuneSettings, ImageRegressors, LinearShapes, fine_tune
from segmodel.finetune import AugmentedEncodings, RenderParts
from segmodel.pieces import LatentModel

from ..encodings import encode_faces, read_encodings
from ..face_fit import CAMERA
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, masked_training_faces
from ..run_model import PartFaceModel, Pose, load_part_face_model, load_run_encoder
from ..settings import FineTuneConfig
from ..tables import write_table
from .regressors import kept_back

Rows = NDArray[np.int64]
Encode = Callable[[Rows], Tensor]

JITTER = 0.03
"""Spread of the turn (radians), of the shift (half the picture's side) and of the log scale of a training photo."""


class PhotoEncodings(nn.Module):
    """Encodings of photos by an encoder that is trained with what comes after it; row N + i is photo i mirrored."""

    def __init__(self, encoder: nn.Module, photos: Tensor, seed: int) -> None:
        """``photos`` (N, 3, S, S): what ``encoder.prepare`` made of the crops."""
        super().__init__()
        self.encoder = encoder
        self._photos = photos
        self._random = torch.Generator().manual_seed(seed)

    def forward(self, rows: Rows) -> Tensor:
        """Encodings (B, E) of the photos of ``rows``, differentiable."""
        encodings: Tensor = self.encoder.embed(self._shown(rows))  # type: ignore[operator]
        return encodings

    def augmented(self, rows: Rows, own: slice) -> Tensor:
        """The same of the ``own`` photos of ``rows``, all of them a little turned, scaled and shifted, in other light.

        Chance is drawn for all: processes that share a batch each ask for a part of it.
        """
        shown = jittered(self._shown(rows), self._random)[own]
        encodings: Tensor = self.encoder.embed(shown)  # type: ignore[operator]
        return encodings

    def _shown(self, rows: Rows) -> Tensor:
        chosen, mirrored = (torch.from_numpy(x) for x in (rows % len(self._photos), rows >= len(self._photos)))
        photos = self._photos[chosen]
        return torch.where(mirrored[:, None, None, None], photos.flip(3), photos)


def jittered(photos: Tensor, random: torch.Generator) -> Tensor:
    """Photos (B, 3, S, S) in any units, each a little turned, scaled and shifted, in other light, colour and noise."""
    count = len(photos)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    angle, scale = JITTER * normal(count), torch.exp(JITTER * normal(count))
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)]
    affine = torch.cat([torch.stack(rows, 1), JITTER * normal(count, 2, 1)], 2)
    grid = functional.affine_grid(affine, list(photos.shape), align_corners=False)
    moved = functional.grid_sample(photos, grid, padding_mode="border", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    spread = moved.std((1, 2, 3), keepdim=True)
    gain = 1 + 0.2 * normal(count, 1, 1, 1) + 0.05 * normal(count, 3, 1, 1)
    light = 0.25 * normal(count, 1, 1, 1) + 0.1 * normal(*photos.shape)
    return mean + gain * (moved - mean) + spread * light


def mirrored_identity(model: FaceModel, identity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Identity (N, Ni) of the mirror images of faces, in least squares; the model has a ``mirror``."""
    flip = np.array([-1.0, 1.0, 1.0])
    basis = model.id_basis.astype(np.float64)
    faces = np.concatenate([basis, model.mean[..., None]], 2)
    mirrored = faces[model.mirror] * flip[:, None]
    mirrored[..., -1] -= model.mean
    directions = mirrored.reshape(-1, mirrored.shape[2])
    turn, *_ = np.linalg.lstsq(basis.reshape(-1, basis.shape[2]), directions, rcond=None)
    return (identity @ turn[:, :-1].T + turn[:, -1]).astype(np.float32)


class Repeated:
    """Masks (N, H, W, 5) of photos and, in rows from N on, of the same photos again."""

    def __init__(self, masks: NDArray[np.bool_]) -> None:
        self._masks = masks

    def __getitem__(self, rows: Rows) -> NDArray[np.bool_]:
        return self._masks[rows % len(self._masks)]


def run(context: StageContext) -> None:
    """Fine-tune regressors, offsets and encoder, and keep them with their losses."""
    model = load_part_face_model(context.inputs)
    pretrained = context.inputs["train_regressors"]
    encoder = load_run_encoder(pretrained, context.config.regressors.encoder)
    regressors = ImageRegressors.load(pretrained / "regressors.safetensors")
    tuning = fine_tune_on_photos(context, model, model.segments, regressors, encoder)
    regressors.save(context.out / "regressors.safetensors")
    torch.save(model.segments.offset_regressor.state_dict(), context.out / "offsets.pt")
    if tuning.encoder_trained:
        _save_encoder(encoder, context.out / "encoder.pt")
    _write(context, tuning)


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning did: its losses, how many photos were kept back for them, and whether the encoder changed."""

    report: FineTuneReport
    n_held_out: int
    encoder_trained: bool


def fine_tune_on_photos(
    context: StageContext,
    model: PartFaceModel,
    decoder: LatentModel,
    regressors: ImageRegressors,
    encoder: FaceEncoder,
) -> Tuning:
    """Fine-tune on the clean training photos with masks.

    ``regressors`` of ``decoder``'s latents, what places the decoder's parts if it has any, and the encoder if it is to
    be trained are changed in place. An encoder without gradients keeps its encodings; one that has them sees every
    photo mirrored too. Faces are shown as those of ``model``, whose mesh the decoder shares.
    """
    config = context.config.fine_tune
    all_faces = load_faces(context.inputs["build_dataset"])
    faces = masked_training_faces(all_faces)
    held_out = kept_back(all_faces, context.config.seed)[faces.rows]
    masks, ignore = faces.masks()
    parts = np.stack([masks == label for label in range(2, 7)], -1) & ~ignore[..., None]
    encode, augmented = _encodings(encoder, faces, context.inputs["train_regressors"], config, context.config.seed)
    identity, held_out_rows = faces.identity, np.flatnonzero(held_out)
    if isinstance(encode, PhotoEncodings) and model.face_model.mirror is not None:
        identity = np.concatenate([identity, mirrored_identity(model.face_model, identity)])
        held_out_rows = np.concatenate([held_out_rows, held_out_rows + len(faces)])
    report = fine_tune(
        decoder,
        regressors,
        encode,
        LinearShapes(model.face_model.mean, model.face_model.id_basis, identity),
        _renderer(model, faces, torch.from_numpy(~ignore)),
        Repeated(parts),
        soften,
        FineTuneSettings(
            epochs=config.epochs,
            batch=config.batch,
            lr=config.lr,
            encoder_lr=config.encoder_lr_of(encoder.name),
            encoding_noise=config.encoding_noise,
            lambda_kl=config.lambda_kl,
            balance=config.balance,
            patience=config.epochs,  # at a high learning rate all is worse at first; what is gained comes at the end
            seed=context.config.seed,
        ),
        held_out_rows,
        augmented,
    )
    return Tuning(report, int(held_out.sum()), isinstance(encode, PhotoEncodings))


def _encodings(
    encoder: FaceEncoder, faces: RunFaces, pretrained: Path, config: FineTuneConfig, seed: int
) -> tuple[Encode, AugmentedEncodings | None]:
    """Encodings to validate and to train on: through the encoder if it is to be trained, else those that are kept."""
    if isinstance(encoder, TrainableEncoder) and isinstance(encoder, nn.Module) and config.encoder_lr_of(encoder.name):
        photos = PhotoEncodings(encoder, encoder.prepare(faces.crops(), faces.five_points), seed)
        return photos, photos.augmented
    kept = torch.from_numpy(encode_faces(encoder, faces, read_encodings(pretrained)).embeddings)
    return lambda rows: kept[torch.from_numpy(rows)], None


def _renderer(model: PartFaceModel, faces: RunFaces, seen: Tensor) -> RenderParts:
    """Part images of neutral faces as the photos show them, but for pixels that are not ``seen`` (N, H, W).

    Faces of rows from N on are those of mirrored photos: they are mirrored back and shown like the photos themselves.
    """
    renderer, pose = PartRenderer(model.faces, model.labels, CAMERA), faces.pose
    partner, flip = model.face_model.mirror, torch.tensor([-1.0, 1.0, 1.0])

    def render_parts(vertices: Tensor, rows: Rows) -> Tensor:
        chosen = torch.from_numpy(rows % len(faces))
        if partner is not None:
            mirrored = torch.from_numpy(rows >= len(faces))[:, None, None]
            vertices = torch.where(mirrored, vertices[:, partner] * flip, vertices)
        at = Pose(pose.expression[chosen], pose.angles[chosen], pose.translation[chosen])
        return renderer.parts(model.posed(vertices, at)) * seen[chosen][..., None]

    return render_parts


def _save_encoder(encoder: FaceEncoder, path: Path) -> None:
    """Write the weights as ``load_encoder`` reads them."""
    if isinstance(encoder, SmallEncoder):
        encoder.save(path)
    elif isinstance(encoder, TorchEncoder):
        torch.save(encoder.network.state_dict(), path)


def _write(context: StageContext, tuning: Tuning) -> None:
    """Losses before and after, and their history."""
    metrics, report = MetricRows(), tuning.report
    validation = [entry for entry in report.history if entry["split"] == "validation"]
    for name, entry in (("before", validation[0]), ("after", validation[report.best_epoch])):
        for key in ("total", "shape", "parts", "kl"):
            metrics.add(name, "all", key, float(entry[key]), tuning.n_held_out)
    metrics.write(context.out)
    rows = [
        (f"fine_tune_{entry['split']}", int(entry["epoch"]), key, float(entry[key]))
        for entry in report.history
        for key in ("total", "shape", "parts", "kl")
    ]
    columns = dict(zip(("model", "epoch", "metric", "value"), map(list, zip(*rows, strict=True)), strict=True))
    write_table(context.out / "history.parquet", "history", columns, producer="segmodel")

"""build_dataset: the face model's topology, and faces with crops, landmarks, pose, identity, expression and masks."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset_builder import (
    Deep3DMM,
    FaceEstimate,
    FaceModel,
    LandmarkEstimator,
    load_face_model,
    load_parser,
    make_photos,
    save_face_model,
)

from ..errors import UserError
from ..photo_plan import plan_photos, read_plan, remove_plan, write_plan
from ..pipeline import StageContext
from ..progress import track
from ..real_photos import PreparedPhoto, RejectedInput, parse_unmasked, prepare_photos
from ..settings import DatasetConfig
from ..sources import other_face_model, weights_source
from ..tables import read_table, write_table

Estimator = Callable[[list[PreparedPhoto]], FaceEstimate]


@dataclass(frozen=True)
class Batch:
    """Photos of one shard in crop space, ready to be estimated and written."""

    photos: list[PreparedPhoto]
    rejected: list[RejectedInput]


def shards(context: StageContext) -> list[str]:
    """Names of the shards: equal runs of the list of photos. Of photographs the plan is written."""
    config = context.config.dataset
    if config.images is None:
        return [f"{i:05d}" for i in range(-(-config.n_photos // config.shard_size))]
    return write_plan(context.out, plan_photos(config, context.config.seed), config.shard_size)


def run_shard(context: StageContext, shard: str) -> None:
    """Prepare, estimate and write one shard of photos."""
    config = context.config.dataset
    first = int(shard) * config.shard_size
    model = load_face_model(config.face_model)
    estimate = estimator(config, model)
    if config.images is None:
        count = min(config.shard_size, config.n_photos - first)
        photos = _synthetic(context, model, first, count)
        batch = Batch(list(track(context.progress, photos, f"photos {shard}", count)), [])
    else:
        batch = _real(context, shard)
    _write(context, model, batch, estimate, shard)


def finish(context: StageContext) -> None:
    """Write the face model and its topology; remove the plan. Raises UserError where no photograph could be used."""
    if not any(context.out.glob("faces-*.parquet")):
        rejected = read_table(sorted(context.out.glob("rejected-*.parquet")), "rejected")
        count, first = len(rejected["detail"]), rejected["detail"][0]
        raise UserError(f"none of the {count} photographs could be used; the first one: {first}")
    model = load_face_model(context.config.dataset.face_model)
    topology = model.topology_hash()
    save_face_model(model, context.out / "face_model.npz")
    write_table(
        context.out / "topology_triangles.parquet",
        "topology_triangles",
        {"triangle": model.faces},
        topology_hash=topology,
        producer="dataset_builder",
    )
    write_table(
        context.out / "topology_landmarks.parquet",
        "topology_landmarks",
        {"name": [f"multi_pie_{i}" for i in range(68)], "vertex": model.landmarks68},
        topology_hash=topology,
        producer="dataset_builder",
    )
    remove_plan(context.out)


def estimator(config: DatasetConfig, model: FaceModel) -> Estimator:
    """Identity, expression and pose of aligned photos on ``model``: by their landmarks, or Deep3DMM by their pixels.

    The residual is the distance of the photo's landmarks from the estimated face's, either way. Raises UserError for
    Deep3DMM on another face model than BFM's front crop, and where its weights are missing.
    """
    if config.estimator == "landmarks":
        return lambda photos: LandmarkEstimator(model).estimate(_landmarks(photos))
    if model.name != "bfm":
        raise UserError(other_face_model(model.name))
    weights = weights_source("dataset.estimator", config.estimator, config.estimator_weights)
    assert weights is not None
    network = Deep3DMM(weights, model)

    def estimate(photos: list[PreparedPhoto]) -> FaceEstimate:
        found = network.estimate(np.stack([photo.crop for photo in photos]))
        residual = np.linalg.norm(found.landmarks(model) - _landmarks(photos), axis=-1)
        return FaceEstimate(
            found.identity, found.expression, found.angles, found.translation, residual.astype(np.float32)
        )

    return estimate


def crop_bytes(crop: NDArray[np.uint8]) -> bytes:
    """A crop as PNG, packed lightly: a tenth of the time of full packing, for a tenth more bytes."""
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _synthetic(context: StageContext, model: FaceModel, first: int, count: int) -> Iterator[PreparedPhoto]:
    """Photos of random faces with exact masks; landmarks carry a detector's noise."""
    config, seed = context.config.dataset, context.config.seed
    validation_from = round(config.n_photos * (1 - config.validation_share))
    made = make_photos(model, count, seed, first=first)
    for i, photo in enumerate(made, first):
        noise = np.random.default_rng([seed, i]).normal(0, config.landmark_noise_px, (68, 2))
        yield PreparedPhoto(
            face_id=f"synthetic-{i:05d}",
            source="synthetic",
            split="validation" if i >= validation_from else "train",
            clean=True,
            crop=photo.image,
            landmarks=(photo.landmarks + noise).astype(np.float32),
            labels=photo.mask,
            ignore=np.zeros(photo.mask.shape, bool),
            mask_source="synthetic",
            sha256="",
            scale=np.ones(2, np.float32),
            offset=np.zeros(2, np.float32),
            identity=photo.identity,
        )


def _real(context: StageContext, shard: str) -> Batch:
    config, entries = context.config.dataset, read_plan(context.out, shard)
    photos: list[PreparedPhoto] = []
    rejected: list[RejectedInput] = []
    parser = None if config.parser == "none" else load_parser(config.parser, config.parser_weights)
    results = prepare_photos(entries)
    for result in track(context.progress, results, f"photos {shard}", len(entries)):
        if isinstance(result, PreparedPhoto):
            photos.append(result)
        else:
            rejected.append(result)
    return Batch(photos if parser is None else parse_unmasked(photos, parser), rejected)


def _landmarks(photos: list[PreparedPhoto]) -> NDArray[np.float32]:
    return np.stack([photo.landmarks for photo in photos])


def _write(context: StageContext, model: FaceModel, batch: Batch, estimate: Estimator, shard: str) -> None:
    photos = batch.photos
    rows = {"topology_hash": model.topology_hash(), "producer": "dataset_builder"}
    if photos:
        faces = _face_columns(photos, estimate(photos))
        write_table(context.out / f"faces-{shard}.parquet", "faces", faces, **rows)
        ids = [p.face_id for p in photos]
        crops = {"face_id": ids, "image": [crop_bytes(p.crop) for p in photos]}
        write_table(context.out / f"crops-{shard}.parquet", "crops", crops, **rows)
        labels = np.stack([p.labels for p in photos])
        masks = {
            "face_id": ids,
            "source": [p.mask_source for p in photos],
            "labels": labels,
            "ignore": np.stack([p.ignore for p in photos]).astype(np.uint8),
            "area": np.stack([(labels == part).sum((1, 2)) for part in range(2, 7)], 1),
        }
        write_table(context.out / f"masks-{shard}.parquet", "masks", masks, **rows)
    rejected = {key: [getattr(r, key) for r in batch.rejected] for key in ("path", "code", "detail")}
    write_table(context.out / f"rejected-{shard}.parquet", "rejected", rejected, **rows)


def _face_columns(photos: list[PreparedPhoto], estimate: FaceEstimate) -> dict[str, list[str] | NDArray[np.generic]]:
    truth = [p.identity for p in photos if p.identity is not None]
    return {
        **({"true_identity": np.stack(truth)} if truth else {}),
        "face_id": [p.face_id for p in photos],
        "source": [p.source for p in photos],
        "person": [p.person or p.face_id for p in photos],
        "split": [p.split for p in photos],
        "clean": np.array([p.clean for p in photos], np.int64),
        "has_mask": np.array([p.has_mask for p in photos], np.int64),
        "identity": estimate.identity,
        "expression": estimate.expression,
        "angles": estimate.angles,
        "translation": estimate.translation,
        "landmarks": _landmarks(photos),
        "landmark_residual": estimate.residual.mean(1),
        "image_sha256": [p.sha256 for p in photos],
        "crop_scale": np.stack([p.scale for p in photos]),
        "crop_offset": np.stack([p.offset for p in photos]),
    }

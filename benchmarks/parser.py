"""How well does the small parser of our own label faces it has not seen, how long does it take, and how large is it?

python benchmarks/parser.py IMAGES MASKS [--manifest manifest.csv] [--epochs 45] [--save parser.safetensors]

Photos are cut into standard crops, split by person, and a parser is trained on the one side. A tenth of it stops the
training; the figures are of the other side, which has no part in it: the mean over photos of the intersection over
union of each part. One thread: OMP_NUM_THREADS=1.
"""

import argparse
import csv
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_builder import (
    PARTS,
    FaceDetector,
    Photo,
    Rejected,
    SmallParser,
    SmallParserSettings,
    align_face,
    crop_ignore,
    crop_labels,
    largest_face,
    parsing_iou,
    read_photos,
    train_parser,
)

CLEAN = {"frontal": 1.0, "glasses": 0.0, "all_face_parts": 1.0}


@dataclass(frozen=True)
class Crops:
    """N crops, their labels and ignored pixels, and whether each is of a clean photo and for training."""

    images: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    clean: np.ndarray
    training: np.ndarray


def read_manifest(path: Path | None) -> dict[str, dict[str, str]]:
    if path is None:
        return {}
    with path.open(newline="") as lines:
        return {Path(row["file"]).name: row for row in csv.DictReader(lines)}


def held_out(group: str, share: float) -> bool:
    """The draw of the flows for seed 0, so that their validation people are not learned from."""
    return int.from_bytes(hashlib.sha256(f"0:{group}".encode()).digest()[:8], "big") / 2**64 < share


def load_crops(images: Path, masks: Path, manifest: Path | None, validation_share: float) -> Crops:
    facts, detector, rows = read_manifest(manifest), FaceDetector(), []
    for photo in read_photos(images, masks):
        face = largest_face(photo, detector) if isinstance(photo, Photo) else photo
        if isinstance(face, Rejected) or photo.mask is None:
            print(f"left out: {face.detail if isinstance(face, Rejected) else f'{photo.path.name} has no mask'}")
            continue
        crop = align_face(photo.image, face.five_points)
        labels, ignore = crop_labels(photo.mask, crop.transform), crop_ignore(photo.ignore, crop.transform)
        fact = facts.get(photo.path.name, {})
        clean = not facts or all(float(fact.get(key) or "nan") == value for key, value in CLEAN.items())
        training = not held_out(fact.get("person_group") or photo.name, validation_share)
        rows.append((crop.image, labels, ignore, clean, training))
    return Crops(*(np.array(column) for column in zip(*rows, strict=True)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("images", type=Path)
    arguments.add_argument("masks", type=Path)
    arguments.add_argument("--manifest", type=Path, help="CSV with person_group and what makes a photo clean")
    arguments.add_argument("--validation-share", type=float, default=0.4)
    arguments.add_argument("--epochs", type=int, default=45)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--save", type=Path, help="where to write the trained parser")
    given = arguments.parse_args()

    crops = load_crops(given.images, given.masks, given.manifest, given.validation_share)
    learned, others = crops.training, ~crops.training
    print(f"{learned.sum()} crops to learn from; {others.sum()} of other people, {(others & crops.clean).sum()} clean")
    start = time.perf_counter()
    parser = train_parser(
        crops.images[learned],
        crops.labels[learned],
        crops.ignore[learned],
        SmallParserSettings(epochs=given.epochs, seed=given.seed),
        progress=lambda epoch, epochs, loss, iou: print(
            f"epoch {epoch}/{epochs}: loss {loss:.3f}, kept-back IoU {iou:.3f}, {time.perf_counter() - start:.0f} s"
        ),
    )
    weights = sum(parameter.numel() for parameter in parser.parameters())
    print(f"{weights} weights, trained in {time.perf_counter() - start:.0f} s")
    if given.save:
        parser.save(given.save)
    report(parser, crops.images[others], crops.labels[others], crops.clean[others])


def report(parser: SmallParser, images: np.ndarray, labels: np.ndarray, clean: np.ndarray) -> None:
    start = time.perf_counter()
    found = parser.parse(images).labels
    print(f"{1000 * (time.perf_counter() - start) / len(found):.0f} ms per crop")
    iou = parsing_iou(found, labels)
    for name, rows in (("all", slice(None)), ("clean", clean)):
        means = np.nanmean(iou[rows], 0)
        parts = "  ".join(f"{part} {mean:.3f}" for part, mean in zip(PARTS, means, strict=True))
        print(f"{name:6} ({len(iou[rows])} photos)  {parts}  mean {means.mean():.3f}")


if __name__ == "__main__":
    main()

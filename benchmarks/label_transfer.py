"""How true are part labels that are voted onto a mesh, by photographs with masks and by renders that a parser labels?

python benchmarks/label_transfer.py [--out pictures] [--parser small_parser.safetensors] [--train-photos 160]

On the built-in face the labels are known: the table is the vertex IoU of each part. The ICT face has no known labels,
so there the two ways are compared: photographs with hand-made masks, and renders with the mean colours of these
photographs, labelled by a small parser that learned from the same people. That needs the photographs and masks under
NEO3DF_ASSETS and is left out without them. A parser that is not given is trained. One thread: OMP_NUM_THREADS=1.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from parser import CLEAN, held_out, read_manifest
from PIL import Image

from dataset_builder import (
    LABEL_IDS,
    PARTS,
    FaceDetector,
    FaceEstimate,
    FaceModel,
    FaceParser,
    FaceRenderer,
    LandmarkDetector,
    LandmarkEstimator,
    PartLabels,
    Rejected,
    SmallParser,
    SmallParserSettings,
    SyntheticPhoto,
    SyntheticTruth,
    align_face,
    crop_ignore,
    crop_labels,
    eye_cap_vertices,
    five_points,
    label_agreement,
    label_report,
    largest_face,
    load_face_model,
    make_photos,
    mean_texture,
    read_photos,
    render_photo,
    sample_appearance,
    sweep_faces,
    train_parser,
    transfer_labels,
    vertex_areas,
    vote_by_rendering,
)
from dataset_builder.procedural import Studio
from flows.pictures import PART_RGB, SKIN, montage, overlay
from flows.pictures import Studio as Drawing

VIEWS = {"front": 0.0, "three-quarter": 40.0, "side": 80.0}
SEEN = 0.05  # votes per face from which a vertex counts as seen


@dataclass(frozen=True)
class FittedPhotos:
    """N crops with their masks, and the faces fitted to them."""

    crops: np.ndarray
    masks: np.ndarray
    ignore: np.ndarray | None
    faces: FaceEstimate


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, help="folder for the pictures")
    arguments.add_argument("--parser", type=Path, help="small parser trained on the training people's masks")
    arguments.add_argument("--photos", type=int, default=48, help="synthetic photographs that vote by their masks")
    arguments.add_argument(
        "--train-photos", type=int, default=160, help="to train a parser for the built-in face; 0: no"
    )
    arguments.add_argument("--epochs", type=int, default=12, help="of that parser")
    arguments.add_argument("--step", type=float, default=0.2, help="of the pose grid, radians")
    given = arguments.parse_args()
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    built_in(given)
    ict(given)


def built_in(given: argparse.Namespace) -> None:
    model = load_face_model("synthetic")
    photos = list(make_photos(model, given.photos, seed=0))
    fitted = of_photos(photos)
    print(f"\nbuilt-in face, {model.n_vertices} vertices: vertex IoU against the known labels")
    print_head()
    for borders in ("between", "edges"):
        start = time.perf_counter()
        found = transfer_labels(model, fitted.masks, fitted.faces, borders=borders)
        agree(f"masks of {len(photos)} photos, {borders}", label_agreement(found.labels, model.labels), start)

    faces = sweep_faces(model, step=given.step)
    start = time.perf_counter()
    studio = Studio.of(model)
    rows = zip(faces.identity, faces.expression, faces.angles, faces.translation, strict=True)
    renders = [render_photo(studio, *row, sample_appearance(i)) for i, row in enumerate(rows)]
    found = vote_by_rendering(
        model, SyntheticTruth(renders), lambda _: of_photos(renders).crops, faces, borders="edges"
    )
    agree(f"{len(faces)} renders, exact parser", label_agreement(found.labels, model.labels), start)
    if given.train_photos:
        trained(model, given, faces)


def trained(model: FaceModel, given: argparse.Namespace, faces: FaceEstimate) -> None:
    """The whole way: a parser learns from photographs with masks; renders carry the photographs' mean colours."""
    start = time.perf_counter()
    fitted = of_photos(list(make_photos(model, given.train_photos, seed=1)))
    parser = train_parser(fitted.crops, fitted.masks, settings=SmallParserSettings(epochs=given.epochs))
    kept_back = np.mean(list(parser.validation_iou.values()))
    print(f"  parser trained in {time.perf_counter() - start:.0f} s, IoU {kept_back:.3f}")
    start = time.perf_counter()
    render = FaceRenderer(model, mean_texture(model, fitted.faces, fitted.crops), background=middle(fitted.crops))
    found = vote_by_rendering(model, parser, render, faces, borders="edges")
    agree(f"{len(faces)} renders, trained parser", label_agreement(found.labels, model.labels), start)
    print_report(model, found)
    if given.out:
        save(given.out / "synthetic_labels.png", label_picture(model, [model.labels, found.labels], ["known", "voted"]))
        save(given.out / "synthetic_renders.jpg", render_picture(render, parser, faces))


def ict(given: argparse.Namespace) -> None:
    folder = Path(os.environ.get("NEO3DF_ASSETS", ""))
    if not (folder / "ict_face.npz").is_file() or not (folder / "celebamask").is_dir():
        print("\nICT face left out: NEO3DF_ASSETS holds no ict_face.npz and celebamask/")
        return
    model = load_face_model(folder / "ict_face.npz")
    start = time.perf_counter()
    fitted = fit_photos(model, folder)
    print(
        f"\nICT face: {len(fitted.crops)} clean photos of training people fitted in {time.perf_counter() - start:.0f} s"
    )
    restrict = {"eyes": eye_cap_vertices(model)}
    start = time.perf_counter()
    by_photos = transfer_labels(model, fitted.masks, fitted.faces, ignore=fitted.ignore, restrict=restrict)
    print(f"by photos with masks, {time.perf_counter() - start:.0f} s")
    print_report(model, by_photos)

    parser = SmallParser.load(given.parser) if given.parser else train_parser(fitted.crops, fitted.masks, fitted.ignore)
    start = time.perf_counter()
    colours = mean_texture(model, fitted.faces, fitted.crops, ignore=fitted.ignore)
    render = FaceRenderer(model, colours, background=middle(fitted.crops))
    faces = sweep_faces(model, step=given.step)
    by_renders = vote_by_rendering(model, parser, render, faces, restrict=restrict)
    print(f"by {len(faces)} renders, {time.perf_counter() - start:.0f} s")
    print_report(model, by_renders)

    print("IoU between the two ways")
    print_head()
    both = (by_photos.ballots.sum(1) > SEEN * len(fitted.crops)) & (by_renders.ballots.sum(1) > SEEN * len(faces))
    for name, weights in (("vertices", None), ("vertices seen by both", both), ("area", vertex_areas(model))):
        agree(name, label_agreement(by_photos.labels, by_renders.labels, weights))
    if given.out:
        pair = [by_photos.labels, by_renders.labels]
        save(given.out / "ict_labels.png", label_picture(model, pair, ["photos", "renders"]))
        save(given.out / "ict_renders.jpg", render_picture(render, parser, faces))
        unsure = [part.confidence for part in (by_photos, by_renders)]
        save(given.out / "ict_confidence.png", confidence_picture(model, unsure, ["photos", "renders"]))


def of_photos(photos: list[SyntheticPhoto]) -> FittedPhotos:
    coefficients = (
        np.stack([getattr(photo, name) for photo in photos]).astype(np.float32)
        for name in ("identity", "expression", "angles", "translation")
    )
    faces = FaceEstimate(*coefficients, np.zeros((len(photos), 68), np.float32))
    return FittedPhotos(np.stack([p.image for p in photos]), np.stack([p.mask for p in photos]), None, faces)


def fit_photos(model: FaceModel, folder: Path) -> FittedPhotos:
    """The clean photographs of the flows' training people, and the faces fitted to their landmarks."""
    facts, detector, networks, rows = read_manifest(folder / "manifest.csv"), FaceDetector(), LandmarkDetector(), []
    for photo in read_photos(folder / "celebamask" / "images", folder / "celebamask" / "masks"):
        fact = facts.get(photo.path.name, {})
        clean = all(float(fact.get(key) or "nan") == value for key, value in CLEAN.items())
        if not clean or held_out(fact.get("person_group") or photo.name, 0.4):
            continue
        face = largest_face(photo, detector)
        if isinstance(face, Rejected):
            continue
        points = networks.detect(photo.image, face.box)
        crop = align_face(photo.image, five_points(points))
        masks = crop_labels(photo.mask, crop.transform), crop_ignore(photo.ignore, crop.transform)
        rows.append((crop.image, *masks, crop.transform.to_crop(points)))
    crops, labels, ignore, landmarks = (np.stack(column) for column in zip(*rows, strict=True))
    return FittedPhotos(crops, labels, ignore, LandmarkEstimator(model).estimate(landmarks))


def middle(crops: np.ndarray) -> np.ndarray:
    """The mean crop: hair and surroundings out of focus."""
    return crops.mean(0).round().astype(np.uint8)


def print_head() -> None:
    print(f"{'':32}" + "".join(f"{part:>11}" for part in PARTS) + "      least     s")


def agree(name: str, scores: dict[str, float], start: float | None = None) -> None:
    took = "" if start is None else f"{time.perf_counter() - start:6.0f}"
    print(f"{name:32}" + "".join(f"{scores[part]:11.3f}" for part in PARTS) + f"{min(scores.values()):11.3f}{took}")


def print_report(model: FaceModel, labels: PartLabels) -> None:
    print("  region      vertices    mm^2  confidence  unsure  unseen  asymmetry  pieces")
    for name, region in label_report(model, labels).items():
        shares = f"{region.confidence:12.3f}{region.unsure:8.3f}{region.unseen:8.3f}{region.asymmetry:11.3f}"
        print(f"  {name:10}{region.vertices:10}{region.area_mm2:8.0f}{shares}{region.pieces:8}")


def label_picture(model: FaceModel, labellings: list[np.ndarray], names: list[str]) -> np.ndarray:
    colours = PART_RGB / 255
    colours[LABEL_IDS["rest"]] = SKIN
    return views(model, [colours[labels] for labels in labellings], names)


def confidence_picture(model: FaceModel, values: list[np.ndarray], names: list[str]) -> np.ndarray:
    return views(model, [np.repeat(value[:, None], 3, 1) for value in values], names)


def views(model: FaceModel, colours: list[np.ndarray], names: list[str]) -> np.ndarray:
    drawing = Drawing(model.faces, 320)
    rows = [[drawing.draw(model.mean, row, yaw) for yaw in VIEWS.values()] for row in colours]
    return montage(rows, list(VIEWS), row_titles=names)


def render_picture(render: FaceRenderer, parser: FaceParser, faces: FaceEstimate, n: int = 24) -> np.ndarray:
    """Some of the faces, each beside what the parser says."""
    crops = render(faces[np.linspace(0, len(faces) - 1, n).round().astype(int)])
    labels = parser.parse(crops).labels
    pictures = [np.concatenate([crop, overlay(crop, found)], 1) for crop, found in zip(crops, labels, strict=True)]
    return montage([pictures[first : first + 4] for first in range(0, n, 4)])


def save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, quality=88)
    print(f"  {path}")


if __name__ == "__main__":
    main()

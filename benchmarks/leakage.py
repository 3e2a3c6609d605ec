"""Does an edit of one part stay in that part? Global PCA, global VAE, LD-VAE, part PCA and the part VAEs compared.

    python benchmarks/leakage.py [--face-model synthetic | --run runs/ict] [--cache DIR] [--pictures DIR] [--quick]

The numbers behind NEO-3DF's figure 4. Every model has 80 latents and learns from the same random faces. For every
method the control maps are fitted on the measurements of its own reconstructions; then every control of every region
goes to +3 and -3 sigma, one at a time, from the mean latent, and the displacement of every vertex from the unedited
face is measured: inside the part; outside it; beyond, which is outside the part and farther than the blending radius
from its border on the template; and elsewhere, outside the part and all that blending may move. Held-out errors in mm
stand beside it: an edit that stays in its part is worth little on a model that cannot make the face.
LD-VAE's maps act on the region's slice of the latent; "shuffled" ones are fitted on faces whose slices come from
different faces, so that no slice stands in for another; the last ones act on all of the latent. Trained models are
kept in the cache folder and read from there the next time; with a pictures folder, leakage.jpg and ld_vae_loss.jpg are
drawn.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from fit_faces import load_parts
from leakage_pictures import draw_heat_maps, draw_ld_history
from torch import Tensor

from dataset_builder import FaceModel, load_face_model
from editing import REGIONS, MeasurementLandmarks
from flows.comparison.edit_reach import EditMethod, EditReach, Surroundings, control_maps, edit_reach, measured_faces
from segmodel import (
    BaselineReport,
    BaselineSettings,
    LinearShapes,
    OffsetSettings,
    PartLayout,
    SegmentModel,
    SwapSettings,
    box_centres,
    load_baseline,
    reconstruction_rms,
    train_baseline,
    train_offset_regressor,
    train_segment_vaes,
)
from segmodel.parts import PARTS

SEED, VALIDATION = 0, 0.1
NAMES = {"global-pca": "global PCA", "global-vae": "global VAE", "ld-vae": "LD-VAE", "part-pca": "part PCA"}
SHOWN_EDIT = ("nose", "width")


@dataclass(frozen=True)
class Sizes:
    """How much is trained and measured."""

    shapes: int
    measured: int
    epochs: int
    steps: int


FULL, QUICK = Sizes(20_000, 2_000, 30, 50_000), Sizes(3_000, 500, 8, 1_500)


def cached_baseline(
    name: str, layout: PartLayout, shapes: LinearShapes, settings: BaselineSettings, cache: Path | None
) -> tuple[torch.nn.Module, BaselineReport]:
    """A baseline of the cache folder, trained and put there if it is missing."""
    folder = None if cache is None else cache / name
    if folder is not None and (folder / "report.json").is_file():
        report = BaselineReport(**json.loads((folder / "report.json").read_text(encoding="utf-8")))
        return load_baseline(name, folder, layout.topology_hash), report
    model, report = train_baseline(name, layout, shapes, settings)
    if folder is not None:
        model.save(folder)
        (folder / "report.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
    return model, report


def cached_parts(layout: PartLayout, shapes: LinearShapes, cache: Path | None) -> SegmentModel:
    """The part VAEs of the cache folder, trained as by default and put there if they are missing."""
    folder = None if cache is None else cache / "part-vae"
    if folder is not None and (folder / "model.json").is_file():
        return SegmentModel.load(folder, layout.topology_hash).requires_grad_(False)
    model, _ = train_segment_vaes(layout, shapes)
    train_offset_regressor(model, shapes, OffsetSettings(seed=SEED))
    if folder is not None:
        model.save(folder)
    return model.requires_grad_(False)


def held_out_rows(count: int) -> np.ndarray:
    """The rows that every training here held out."""
    return np.sort(np.random.default_rng(SEED).permutation(count)[: round(VALIDATION * count)])


def shuffled(latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Latents ``{name: (N, D)}`` of new faces whose slices come from different ones, independently."""
    generator = torch.Generator().manual_seed(0)
    return {name: z[torch.randperm(len(z), generator=generator)] for name, z in latents.items()}


def errors_of_parts(parts: SegmentModel, shapes: LinearShapes) -> dict[str, dict[str, float]]:
    """Held-out errors of the part model with predicted and with true places of the parts."""

    def placed(vertices: Tensor) -> Tensor:
        centres = [box_centres(vertices[:, parts.layout.vertices(part)]) for part in PARTS]
        return parts.decode(parts.encode(vertices), torch.stack(centres, 1), blend=False)

    rows = held_out_rows(len(shapes))
    predicted = reconstruction_rms(lambda v: parts.decode(parts.encode(v), blend=False), parts.layout, shapes, rows)
    return {"part VAEs": predicted, "part VAEs, true places": reconstruction_rms(placed, parts.layout, shapes, rows)}


def print_errors(errors: dict[str, dict[str, float]], seconds: dict[str, float]) -> None:
    """Held-out errors by method and region."""
    print("\nheld-out RMS vertex error, mm, encoded and decoded unblended (80 latents each)")
    print(f"  {'':26s}" + "".join(f"{region:>11s}" for region in (*REGIONS, "face")) + f"{'trained in s':>14s}")
    for name, rms in errors.items():
        cells = "".join(f"{rms[region]:11.3f}" for region in (*REGIONS, "face"))
        print(f"  {name:26s}{cells}{seconds.get(name, float('nan')):14.0f}")


def print_leakage(rows: list[EditReach]) -> None:
    """One line per method and region."""
    print(
        "\ndisplacement in mm over all controls of a region at +3 and -3 sigma from the mean latent: means, ratios and"
    )
    print("largest; response: what a control's own measurement moves per sigma asked (1 is exact), mean and range")
    averages = ("inside", "outside", "beyond", "out/in", "bey./in")
    header = (*averages, "max out", "max bey.", "max else", "response", "range")
    print(f"  {'':12s}{'':26s}" + "".join(f"{title:>10s}" for title in header[:-1]) + f"{header[-1]:>14s}")
    for region in REGIONS:
        for row in (row for row in rows if row.region == region):
            means = (row.inside, row.outside, row.beyond, row.out_ratio, row.beyond_ratio)
            cells = "".join(f"{value:10.3f}" for value in means)
            worst = f"{row.max_outside:10.2f}{row.max_beyond:10.2f}{row.max_elsewhere:10.2f}"
            span = f"{row.responses.min():.2f} to {row.responses.max():.2f}"
            print(f"  {region:12s}{row.method:26s}{cells}{worst}{row.responses.mean():10.2f}{span:>14s}")
        print()


def loaded(options: argparse.Namespace) -> tuple[FaceModel, SegmentModel | None, PartLayout]:
    """The face model, a finished run's part models, and the labelled topology."""
    if options.run:
        model, parts = load_parts(options.run)
        return model, parts, parts.layout
    model = load_face_model(options.face_model)
    return model, None, PartLayout.from_labels(model.labels, model.faces, model.mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="a run folder with finished build_dataset and train_segments stages")
    source.add_argument("--face-model", default="synthetic", choices=["synthetic-3k", "synthetic", "synthetic-35k"])
    parser.add_argument("--cache", type=Path, help="folder of trained models, one per face model")
    parser.add_argument("--pictures", type=Path, help="folder for leakage.jpg and ld_vae_loss.jpg")
    parser.add_argument("--ridge", type=float, default=0.02, help="of the control maps")
    parser.add_argument("--quick", action="store_true", help="little training, few faces: two minutes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = QUICK if options.quick else FULL
    model, parts, layout = loaded(options)
    shapes = LinearShapes(model.mean, model.id_basis, model.sample(sizes.shapes, SEED))
    print(
        f"{model.name}: {model.n_vertices} vertices; {sizes.shapes} faces, {sizes.epochs} epochs of the global VAE, "
        f"{sizes.steps} steps of LD-VAE; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    settings = BaselineSettings(epochs=sizes.epochs, swap=SwapSettings(steps=sizes.steps), seed=SEED)
    trained = {name: cached_baseline(name, layout, shapes, settings, options.cache) for name in NAMES}
    parts = parts or cached_parts(layout, shapes, options.cache)
    for baseline, _ in trained.values():
        if isinstance(baseline, SegmentModel):
            baseline.radius_mm, baseline.n_solves = parts.radius_mm, parts.n_solves
    errors = {NAMES[name]: report.rms_mm for name, (_, report) in trained.items()} | errors_of_parts(parts, shapes)
    print_errors(errors, {NAMES[name]: report.seconds for name, (_, report) in trained.items()})

    points = MeasurementLandmarks.from_template(model.mean, layout.labels, model.landmarks68)
    face = Surroundings(layout, points, parts.radius_mm)
    sample = LinearShapes(model.mean, model.id_basis, model.sample(sizes.measured, SEED + 1))
    baselines = {name: baseline for name, (baseline, _) in trained.items()}
    decoders = {name: (baseline, baseline.latents_of(sample)) for name, baseline in baselines.items()}
    decoders["parts"] = parts, parts.latents_of(sample)
    decoders["shuffled"] = baselines["ld-vae"], shuffled(decoders["ld-vae"][1])
    plans = (
        ("global PCA", "global-pca", True, False),
        ("global VAE", "global-vae", True, False),
        ("LD-VAE, slice", "ld-vae", False, False),
        ("LD-VAE, slice, shuffled", "shuffled", False, False),
        ("LD-VAE, whole latent", "ld-vae", True, False),
        ("part PCA, unblended", "part-pca", False, False),
        ("part PCA, blended", "part-pca", False, True),
        ("part VAEs, unblended", "parts", False, False),
        ("part VAEs, blended", "parts", False, True),
    )
    print(f"\ncontrol maps from {sizes.measured} faces and leakage, ridge {options.ridge}")
    methods: list[EditMethod] = []
    rows: list[EditReach] = []
    measured = {name: measured_faces(decoder, points, latents) for name, (decoder, latents) in decoders.items()}
    for title, name, whole, blend in plans:
        began = time.perf_counter()
        decoder, latents = decoders[name]
        controls = control_maps(measured[name], latents, whole_latent=whole, ridge=options.ridge)
        methods.append(EditMethod(title, decoder, controls, whole, blend))
        rows += edit_reach(methods[-1], face)
        print(f"  {title}: {time.perf_counter() - began:.0f} s", flush=True)
    print_leakage(rows)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        draw_heat_maps(options.pictures / "leakage.jpg", methods, face, *SHOWN_EDIT)
        draw_ld_history(options.pictures / "ld_vae_loss.jpg", trained["ld-vae"][1].history, errors)


if __name__ == "__main__":
    main()

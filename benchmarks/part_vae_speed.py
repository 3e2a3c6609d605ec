"""What does training the part VAEs cost, next to the same networks as wide as the vertices?

python benchmarks/part_vae_speed.py [--faces synthetic ict-11k synthetic-35k] [--batches 16 64] [--threads 2]
                                    [--parts step loss training] [--quick]

step: milliseconds per step of Adam for all six networks, the smallest of several, wall and in brackets processor time
of all threads; and the peak of memory that building and training them adds to a process with the face model loaded
(Linux: VmHWM). Every case has a process of its own. The dense networks get their batches as vertices for nothing; the
reduced ones are timed as they are used, epoch by epoch, with shuffling and drawing of noise. Sizes are those of a saved
model, the reduced one's with its mean and basis, and of a checkpoint, with Adam's moments.
loss: the reduced loss in float32 against the dense one in float64, the same weights, faces and noise.
training: whole trainings: the demo's setting, and 30 epochs on 20,000 ICT faces from random weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from arap_measure import Cost, highest_resident, resident_now
from part_vae_dense import DenseVae, dense_vaes, region_laplacian, region_vertices
from part_vae_faces import FACES, load

from segmodel import REGIONS, VaeSettings, train_segment_vaes, vae_loss
from segmodel._mesh import renumber
from segmodel._subspace import Subspace, smoothness_factor

STEP_GOALS = {("ict-11k", 16): 25, ("synthetic-35k", 16): 80}  # times faster than dense
TRAININGS = {
    "demo": ("synthetic", 10_000, {"init": "pca", "epochs": 4}, 60),
    "30 epochs": ("ict-11k", 20_000, {"init": "random", "epochs": 30}, 240),
}
# threads that sleep at once cost more than a small product takes, threads that never sleep starve numba's
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
SETTINGS = VaeSettings(init="random")
DIMS = {region: SETTINGS.latent_dim(region) for region in REGIONS}
ADAM_ARRAYS = 3  # weights and two moments, in a checkpoint


def reduced_step(face: str, batch: int, steps: int) -> dict[str, float]:
    """Time per step, from the times of epochs of ``steps`` steps each, and the sizes of what is saved."""
    layout, shapes = load(face, batch * steps + 10)
    before = resident_now()
    marks: list[tuple[float, float]] = []
    settings = VaeSettings(init="random", epochs=7, batch=batch, lr=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "training.pt")
        model, _ = train_segment_vaes(
            layout,
            shapes,
            settings,
            np.arange(10),
            on_epoch=lambda *_: marks.append((time.perf_counter(), time.process_time())),
        )
        peak = highest_resident() - before
        train_segment_vaes(layout, shapes, VaeSettings(init="random", epochs=1, batch=batch), [0], checkpoint=path)
        model.save(folder)
        files = {"model": Path(folder, "model.safetensors").stat().st_size, "checkpoint": path.stat().st_size}
    trained = sum(p.numel() for vae in model.vaes.values() for p in vae.parameters())
    wall, cpu = 1e3 * np.diff(marks, axis=0).min(axis=0) / steps
    sizes = {f"{name} MB": size / 1e6 for name, size in files.items()}
    return {"wall": wall, "cpu": cpu, "peak MB": peak, "parameters": trained, "vertices": layout.n_vertices, **sizes}


def dense_step(face: str, batch: int, steps: int) -> dict[str, float]:
    """The same of the dense networks."""
    layout, shapes = load(face, 2 * batch)
    before, cost = resident_now(), Cost()
    batches = [region_vertices(layout, shapes, range(i * batch, (i + 1) * batch)) for i in range(2)]
    vaes = dense_vaes(layout, batches[0], DIMS, SETTINGS.lambda_smooth, SETTINGS.lambda_kl)
    parameters = [p for vae in vaes.values() for p in vae.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-4, fused=True)

    def step(vertices: dict[str, torch.Tensor]) -> None:
        loss = sum(vae.loss(vertices[region], torch.randn(batch, DIMS[region])) for region, vae in vaes.items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    for i in range(steps):
        cost.time(lambda i=i: step(batches[i % 2]))
    count = sum(p.numel() for p in parameters)
    sizes = {"model MB": 4e-6 * count, "checkpoint MB": 4e-6 * ADAM_ARRAYS * count}
    peak = highest_resident() - before
    return {
        "wall": cost.wall,
        "cpu": cost.cpu,
        "peak MB": peak,
        "parameters": count,
        "vertices": layout.n_vertices,
        **sizes,
    }


def loss_difference(face: str, batch: int) -> dict[str, float]:
    """Largest relative difference, over the regions, of the reduced float32 loss to the dense float64 one."""
    layout, shapes = load(face, 400)
    model, _ = train_segment_vaes(layout, shapes, VaeSettings(init="random", epochs=1))
    rows, generator, worst = torch.arange(batch), torch.Generator().manual_seed(0), 0.0
    for region in REGIONS:
        vae, own = model.vae(region), shapes.region(layout.vertices(region))
        noise = torch.randn(batch, vae.latent_dim, generator=generator)
        ids = layout.vertices(region)
        subspace = Subspace(vae.mean.double().numpy(), vae.basis.double().numpy(), np.ones(vae.basis.shape[1]))
        factor = smoothness_factor(
            subspace, layout.template[ids], renumber(layout.part_faces(region), ids, layout.n_vertices), 1.0
        )
        terms = vae_loss(vae, model.coordinates_of(shapes, region)[rows], factor, noise)
        reduced = float((terms.fit + SETTINGS.lambda_kl * terms.kl).detach())
        vertices = own.mean.double() + torch.einsum("vck,bk->bvc", own.basis.double(), own.coefficients[rows].double())
        if region != "rest":
            vertices[..., 1:] -= own.box_centres()[rows, None].double()
        dense = DenseVae(vae.mean.double(), region_laplacian(layout, region), vae.latent_dim, 1.0, SETTINGS.lambda_kl)
        exact = float(dense.double().take(vae).loss(vertices.flatten(1), noise.double()).detach())
        worst = max(worst, abs(reduced - exact) / exact)
    return {"difference": worst}


def whole_training(name: str) -> dict[str, float]:
    face, n, arguments, _ = TRAININGS[name]
    layout, shapes = load(face, n + n // 10)
    before = resident_now()
    report = train_segment_vaes(layout, shapes, VaeSettings(**arguments), np.arange(n // 10))[1]
    ratios = [quality.ratio for quality in report.regions.values()]
    parts, rest = max(ratios[:-1]), ratios[-1]
    return {"seconds": report.seconds, "peak MB": highest_resident() - before, "parts": parts, "rest": rest}


def in_own_process(threads: int, *arguments: object) -> dict[str, float]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | WAITING
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def print_steps(options: argparse.Namespace) -> None:
    heads = ("ms: wall (cpu)", "times faster", "goal", "parameters", "peak MB", "model MB", "checkpoint MB")
    print(f"\n{'':26}" + "".join(f"{head:>17}" for head in heads))
    for face in options.faces:
        for batch in options.batches:
            dense, reduced = (
                in_own_process(options.threads, kind, face, batch, steps)
                for kind, steps in (("dense", options.dense_steps), ("reduced", options.reduced_steps))
            )
            print(f"{face}, {dense['vertices']:,} vertices, batch {batch}")
            wall, cpu = (dense[name] / reduced[name] for name in ("wall", "cpu"))
            wanted = STEP_GOALS.get((face, batch))
            for kind, found in (("dense", dense), ("reduced", reduced)):
                speed = (f"{wall:.0f} ({cpu:.0f})", str(wanted or "")) if kind == "reduced" else ("", "")
                cells = (f"{found['wall']:.2f} ({found['cpu']:.1f})", *speed, f"{found['parameters'] / 1e6:.2f} M")
                cells += tuple(f"{found[name]:.0f}" for name in ("peak MB", "model MB", "checkpoint MB"))
                print(f"  {kind:24}" + "".join(f"{cell:>17}" for cell in cells))


def print_losses(options: argparse.Namespace) -> None:
    print("\nreduced float32 loss against dense float64, largest relative difference of the regions (goal 1e-6)")
    for face in options.faces:
        print(f"  {face:20}{in_own_process(options.threads, 'loss', face, 16, 0)['difference']:.1e}")


def print_trainings(options: argparse.Namespace) -> None:
    print(f"\n{'whole trainings':48}{'s':>8}{'goal':>8}{'peak MB':>10}{'ratio to PCA, parts':>22}{'rest':>8}")
    for name, (face, n, arguments, seconds) in TRAININGS.items():
        found = in_own_process(options.threads, "training", name, 0, 0)
        words = f"{name}: {face}, {n:,} faces, {arguments['epochs']} epochs, {arguments['init']}"
        print(
            f"  {words:46}{found['seconds']:8.1f}{'< ' + str(seconds):>8}{found['peak MB']:10.0f}"
            f"{found['parts']:22.3f}{found['rest']:8.3f}"
        )


MEASURES = {"dense": dense_step, "reduced": reduced_step}


def measured(kind: str, name: str, batch: int, steps: int) -> dict[str, float]:
    if kind == "training":
        return whole_training(name)
    return loss_difference(name, batch) if kind == "loss" else MEASURES[kind](name, batch, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    faces = tuple(name for name in FACES if name != "ict")
    parser.add_argument("--faces", nargs="+", choices=faces, default=("synthetic", "ict-11k", "synthetic-35k"))
    parser.add_argument("--batches", nargs="+", type=int, default=(16, 64))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dense-steps", type=int, default=20)
    parser.add_argument("--reduced-steps", type=int, default=80)
    printers = {"step": print_steps, "loss": print_losses, "training": print_trainings}
    parser.add_argument("--parts", nargs="+", choices=tuple(printers), default=tuple(printers))
    parser.add_argument("--quick", action="store_true", help="the smallest face, batch 16, few steps, no training")
    parser.add_argument("--measure", nargs=4, metavar=("KIND", "NAME", "BATCH", "STEPS"), help="one case, as JSON")
    options = parser.parse_args()
    if options.measure:
        kind, name, batch, steps = options.measure
        json.dump(measured(kind, name, int(batch), int(steps)), sys.stdout)
        return
    if options.quick:
        options.faces, options.batches, options.parts = ("synthetic",), (16,), ("step", "loss")
        options.dense_steps, options.reduced_steps = 8, 20
    print(f"{options.threads} threads of {os.cpu_count()} cores, torch {torch.__version__}")
    for part in options.parts:
        printers[part](options)


if __name__ == "__main__":
    main()

"""The pictures of leakage.py: where a nose edit moves the face, and how LD-VAE's training went."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from flows.comparison.edit_figures import HEAT, SoftLight, cropped
from flows.comparison.edit_reach import SIGMA, EditMethod, Surroundings

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

SIZE = 300
GREY = 0.86
PANELS = {
    "loss": "weighted sum",
    "reconstruction": "reconstruction: mean squared\nstandardised error",
    "kl": "KL, nats",
    "consistency": "latent consistency: mean hinge",
    "laplacian": "squared Laplacian",
    "held_out_rms_mm": "held-out RMS error, mm",
}


def draw_heat_maps(path: Path, methods: Sequence[EditMethod], face: Surroundings, region: str, control: str) -> None:
    """How far +3 sigma of one control moves every vertex, method by method, on one scale in mm."""
    layout, light = face.layout, SoftLight(face.layout.faces, SIZE)
    moves = {}
    for method in methods:
        names = method.controls.region(region).names
        moves[method.title] = method.displacement(region, SIGMA * np.eye(len(names))[[names.index(control)]])[0]
    full_scale = max(float(move.max()) for move in moves.values())
    pictures = {
        f"{region} (dark) and the skin\nwithin {face.radius_mm:g} mm of it": light.draw(
            layout.template, _areas(face, region)
        )
    }
    inside = face.inside(region)
    for method in methods:
        move = moves[method.title]
        ratio = move[~inside].mean() / move[inside].mean()
        title = f"{method.title}\noutside / inside {ratio:.2f}"
        pictures[title] = light.draw(method.base.numpy(), HEAT(move / full_scale)[:, :3])
    columns = -(-len(pictures) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(2.3 * columns, 5.4), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, title, picture in zip(axes.flat, pictures, cropped(list(pictures.values())), strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8)
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, full_scale), HEAT)
    figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.01).set_label(
        f"displacement in mm by +3σ of the {region}'s {control.replace('_', ' ')}"
    )
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)


def _areas(face: Surroundings, region: str) -> np.ndarray:
    """Vertex colours (V, 3): the part dark, its surroundings lighter, the rest light grey."""
    colours = np.full((face.layout.n_vertices, 3), GREY)
    colours[~face.beyond(region)] = HEAT(0.75)[:3]
    colours[face.inside(region)] = HEAT(0.1)[:3]
    return colours


def draw_ld_history(path: Path, history: dict[str, list[float]], errors: dict[str, dict[str, float]]) -> None:
    """LD-VAE's loss terms and held-out error against the steps; the other methods' errors as lines."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        axis.plot(np.array(history["step"]) / 1000, history[name], color="#00429d", marker=".", markersize=3)
        axis.set_title(title, fontsize=9)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(which="both", alpha=0.25)
        axis.set_xlabel("thousand steps", fontsize=8)
        axis.tick_params(labelsize=8)
    last = axes.flat[len(PANELS) - 1]
    for colour, name in zip(("#e69f00", "#009e73", "#cc79a7"), ("part PCA", "part VAEs", "global VAE"), strict=True):
        last.axhline(errors[name]["face"], color=colour, linestyle="--", label=f"{name} {errors[name]['face']:.2f}")
    last.legend(fontsize=7, title=f"LD-VAE {history['held_out_rms_mm'][-1]:.2f} at the end", title_fontsize=7)
    figure.suptitle("LD-VAE in training: mean of each term since the point before", fontsize=10)
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 88})
    plt.close(figure)

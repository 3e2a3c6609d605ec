"""Draws docs/img/arap_bar_and_nose.jpg, the picture in the manual of arap_diff, from what two examples compute.

python docs/arap_picture.py
"""

import runpy
from pathlib import Path

import numpy as np
import torch

from flows.pictures import Rgb, Studio, jpeg_bytes, montage

ROOT = Path(__file__).parents[1]
SIZE = 300
STEEL = np.array([0.62, 0.70, 0.80])
HELD, MOVED = np.array([0.35, 0.42, 0.50]), np.array([0.90, 0.45, 0.25])


def bar_row() -> list[Rgb]:
    """The bar at rest, with its end turned alone, bent without rotations and with them."""
    bar = runpy.run_path(str(ROOT / "examples" / "01_bend_a_bar.py"))
    rest, fixed, moved, end = (bar[name] for name in ("rest", "fixed", "moved", "end"))
    torn = rest.clone()
    torn[moved] = end.detach()
    linear = bar["solver"].solve(rest, torch.cat([rest[fixed], end.detach()]), n_solves=1)
    colours = np.tile(STEEL, (len(rest), 1))
    colours[fixed], colours[moved] = HELD, MOVED
    studio = Studio(bar["faces"], SIZE)
    shift, scale, band = np.array([50.0, 21.0, 0.0]), 1.9, slice(SIZE // 4, 3 * SIZE // 4)
    shapes = (rest, torn, linear, bar["bent"])
    return [studio.draw(scale * (shape.detach().numpy() - shift), colours)[band] for shape in shapes]


def nose_row() -> list[Rgb]:
    """The face at rest, with its nose turned alone, with the skin following without rotations and with them."""
    face = runpy.run_path(str(ROOT / "examples" / "04_turn_a_nose.py"))
    rest, nose = face["rest"], face["nose"]
    torn = rest.clone()
    torn[nose] = face["turned"]
    colours = np.tile(np.array([0.80, 0.70, 0.63]), (len(rest), 1))
    colours[nose] = MOVED
    colours[face["skin"]] = STEEL
    studio, scale = Studio(face["model"].faces, SIZE), 2.2
    shapes = (rest, torn, face["linear"], face["deformed"])
    return [studio.draw(scale * (shape.numpy() - rest[nose].mean(0).numpy()), colours, yaw=60) for shape in shapes]


def main() -> None:
    """Write the picture."""
    titles = ("at rest", "handles alone", "n_solves=1: no rotations", "rotations fitted")
    picture = np.concatenate([montage([bar_row()], titles=titles), montage([nose_row()])])
    (ROOT / "docs" / "img" / "arap_bar_and_nose.jpg").write_bytes(jpeg_bytes(picture))


if __name__ == "__main__":
    main()

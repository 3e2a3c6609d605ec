"""Draws what the 30 controllers measure, docs/img/measures_*.jpg, and writes their table, docs/controls.md.

python docs/measures_picture.py --run runs/ict --run runs/demo

Faces are the mean faces of the runs' face models; means and standard deviations are those the runs' controllers were
fitted with. Every line is drawn from the same points and boxes that ``editing.measure`` reads.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataset_builder import FaceModel
from editing import CONTROLLERS, Controller, MeasurementLandmarks, part_colours
from fitting import Camera
from flows.pictures import FONT, Rgb, Studio, jpeg_bytes
from flows.run_model import load_part_face_model, measuring_points
from flows.store import find_output
from flows.tables import read_table

DOCS = Path(__file__).parent
DRAWN, PANEL, MARGIN_MM, PALE = 900, 400, 5.0, 0.45
NUMBERS = {controller.key: i for i, controller in enumerate(CONTROLLERS, start=1)}
INK = (
    (214, 39, 40),
    (31, 119, 180),
    (20, 130, 20),
    (148, 60, 189),
    (200, 90, 0),
    (0, 130, 150),
    (120, 75, 60),
    (60, 60, 60),
)
Ink = tuple[int, int, int]
X, Y, Z = 0, 1, 2
ASIDE = {"upper_facial_height": -9.0, "lower_facial_height": 9.0}  # mm: three heights of one midline, side by side
WHERE = (0.5, 0.36, 0.64, 0.8)  # along the line, so that numbers of neighbouring lines do not cover each other
# Means and standard deviations, mm, of the authors' published code on BFM shapes of FFHQ photographs; none where it
# measures a part's position on the whole face.
PUBLISHED: dict[str, tuple[float, float]] = {
    "eyebrows.front_thickness": (5.57, 0.794), "eyebrows.tail_thickness": (4.00, 0.243),
    "eyebrows.length": (42.79, 1.441), "eyebrows.curve_strength": (6.16, 0.523),
    "eyes.pupils_distance": (59.12, 2.222), "eyes.eye_height": (7.00, 0.976), "eyes.canthus_distance": (22.54, 1.302),
    "nose.height": (47.23, 3.318), "nose.width": (35.81, 2.726), "nose.tip_width": (12.85, 0.796),
    "nose.bridge_width": (13.81, 0.781), "upper_lip.bow_width": (12.32, 0.994), "upper_lip.height": (6.11, 1.022),
    "upper_lip.width": (47.27, 3.392), "upper_lip.end_height": (4.64, 0.729), "lower_lip.height": (7.62, 1.024),
    "lower_lip.width": (44.18, 2.957), "lower_lip.end_height": (4.49, 0.565),
    "rest.maximum_facial_width": (146.0, 5.147), "rest.mandibular_width": (110.0, 4.756),
    "rest.upper_facial_depth": (30.1, 1.817), "rest.middle_facial_depth": (37.1, 2.427),
    "rest.lower_facial_depth": (18.8, 3.213), "rest.facial_height": (118.2, 6.425),
    "rest.upper_facial_height": (75.1, 4.267), "rest.lower_facial_height": (61.9, 3.774),
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A face with its measuring points, and how to picture it."""

    face: FaceModel
    labels: NDArray[np.int64]
    points: MeasurementLandmarks

    def at(self, name: str) -> NDArray[np.float64]:
        """Positions (S, 3) of a measuring point."""
        return self.face.mean[self.points.points[name]].astype(np.float64).mean(axis=1)

    def box(self, region: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Extreme vertices (axis, 2, 3) of a region and the corners of its bounding box; rest: of the whole face."""
        xyz = (self.face.mean if region == "rest" else self.face.mean[self.points.boxes[region]]).astype(np.float64)
        return xyz[np.stack([xyz.argmin(axis=0), xyz.argmax(axis=0)], axis=1)], xyz.min(axis=0), xyz.max(axis=0)


def lines(drawing: Drawing, controller: Controller) -> NDArray[np.float64]:
    """The measured lengths as line segments (N, 2, 3) mm, one per side where a measure is paired."""
    at = [drawing.at(name) for name in controller.points]
    ends, low, high = drawing.box(controller.region)
    aside = np.array([ASIDE.get(controller.name, 0.0), 0.0, 0.0])
    match controller.rule:
        case "distance":
            return np.stack([at[0], at[1]], axis=1)
        case "delta_y":
            foot = (at[0] + at[1]) / 2
            return np.stack([moved_to(foot, Y, at[0][:, Y]), moved_to(foot, Y, at[1][:, Y])], axis=1) + aside
        case "across" | "across_x":
            return at[0][None]
        case "sag":
            return np.stack([(at[0] + at[1]) / 2, at[2]], axis=1)
        case "y":
            return np.stack([moved_to(at[0], Y, (low[Y] + high[Y]) / 2), at[0]], axis=1)
        case "z":
            origin = 0.0 if controller.region == "rest" else (low[Z] + high[Z]) / 2
            return np.stack([moved_to(at[0], Z, origin), at[0]], axis=1)
        case "box_width":
            height = low[Y] - 2.0 if controller.region == "nose" else ends[X][:, Y].mean()
            return moved_to(moved_to(ends[X], Y, height), Z, ends[X][:, Z].mean())[None]
        case "box_height":
            return moved_to(moved_to(ends[Y], X, high[X] + 3.0), Z, ends[Y][:, Z].mean())[None]


def moved_to(points: NDArray[np.float64], axis: int, value: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (S, 3) with one coordinate replaced."""
    result = points.copy()
    result[:, axis] = value
    return result


@dataclass(frozen=True)
class View:
    """Which controllers one panel shows, from which side (yaw in degrees), and what it frames."""

    title: str
    controllers: tuple[Controller, ...]
    regions: tuple[str, ...]
    yaw: float = 0.0


def views() -> tuple[View, ...]:
    """The seven panels."""

    def of(*regions: str, depth: bool = False) -> tuple[Controller, ...]:
        return tuple(c for c in CONTROLLERS if c.region in regions and (c.rule == "z") is depth)

    return (
        View("eyebrows", of("eyebrows"), ("eyebrows",)),
        View("eyes", of("eyes"), ("eyes",)),
        View("nose", of("nose"), ("nose",)),
        View("nose, from the side", of("nose", depth=True), ("nose",), yaw=90.0),
        View("lips", of("upper_lip", "lower_lip"), ("upper_lip", "lower_lip")),
        View("rest", of("rest"), ("rest",)),
        View("rest, from the side", of("rest", depth=True), ("rest",), yaw=90.0),
    )


def project(points: NDArray[np.float64], camera: Camera, yaw: float) -> NDArray[np.float64]:
    """Pixels (..., 2) of points (..., 3) mm after the head has been turned."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    x, y, z = c * points[..., 0] + s * points[..., 2], points[..., 1], c * points[..., 2] - s * points[..., 0]
    depth = camera.distance - z
    return np.stack([camera.fx * x / depth + camera.cx, camera.cy - camera.fy * y / depth], axis=-1)


def panel(drawing: Drawing, studio: Studio, view: View) -> Rgb:
    """One view of the face with its lines, numbered as in the table, and a legend below."""
    camera = Camera.deep3d(DRAWN)
    colours = 1 - PALE * (1 - part_colours(drawing.labels)[:, :3].astype(np.float64) / 255)
    picture = studio.draw(drawing.face.mean, colours, yaw=view.yaw)
    outline = [drawing.box(region)[0].reshape(-1, 3) for region in view.regions]
    drawn = [lines(drawing, c).reshape(-1, 3) for c in view.controllers]
    framed = project(np.concatenate(outline + drawn), camera, view.yaw)
    low, high = framed.min(0), framed.max(0)
    half = (high - low).max() / 2 + MARGIN_MM * camera.fx / camera.distance
    left, top = (low + high) / 2 - half
    scale = PANEL / (2 * half)
    image = Image.fromarray(picture).transform(
        (PANEL, PANEL),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        Image.Resampling.BICUBIC,
        fillcolor="white",
    )
    sheet = Image.new("RGB", (PANEL, PANEL + 26 + 20 * len(view.controllers)), "white")
    sheet.paste(image, (0, 24))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 14)
    pen.text((4, 3), view.title, "black", font)
    for i, controller in enumerate(view.controllers):
        pixels = (project(lines(drawing, controller), camera, view.yaw) - (left, top)) * scale + (0, 24)
        for segment in pixels:
            _draw_line(pen, segment, INK[i])
        _draw_number(pen, pixels[-1], NUMBERS[controller.key], INK[i], font, WHERE[i % len(WHERE)])
        y = PANEL + 26 + 20 * i
        pen.text((6, y), f"{NUMBERS[controller.key]}", INK[i], font)
        pen.text((34, y), controller.title + ("" if len(pixels) == 1 else ", mean of both sides"), "black", font)
    return np.asarray(sheet)


def _draw_line(pen: ImageDraw.ImageDraw, segment: NDArray[np.float64], ink: Ink) -> None:
    pen.line([tuple(p) for p in segment], ink, 3)
    along = segment[1] - segment[0]
    across = np.array([-along[1], along[0]]) / max(1e-6, float(np.hypot(*along))) * 5
    for end in segment:
        pen.line([tuple(end - across), tuple(end + across)], ink, 2)


def _draw_number(
    pen: ImageDraw.ImageDraw,
    segment: NDArray[np.float64],
    number: int,
    ink: Ink,
    font: ImageFont.FreeTypeFont,
    t: float,
) -> None:
    """The number beside its line, at the fraction t of it."""
    along = segment[1] - segment[0]
    aside = np.array([-along[1], along[0]]) / max(1e-6, float(np.hypot(*along))) * 12
    x, y = segment[0] + t * along + (aside if aside[0] > 0 else -aside)
    pen.text((x, y), str(number), ink, font, anchor="mm", stroke_width=3, stroke_fill="white")


def sheet_of(panels: list[Rgb]) -> Rgb:
    """Panels four to a row on white."""
    rows = [panels[i : i + 4] for i in range(0, len(panels), 4)]
    heights = [max(p.shape[0] for p in row) for row in rows]
    sheet = np.full((sum(heights) + 8, 4 * PANEL + 24, 3), 255, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for j, picture in enumerate(row):
            sheet[top : top + len(picture), j * (PANEL + 8) : j * (PANEL + 8) + PANEL] = picture
        top += height + 8
    return sheet


def statistics(run: Path) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation, mm, of every measurement over a run's random faces."""
    rows = read_table(find_output(run, "fit_controllers") / "controllers.parquet", "controllers")
    keys = [f"{part}.{name}" for part, name in zip(rows["part"], rows["name"], strict=True)]
    return dict(zip(keys, zip(rows["mean"].tolist(), rows["sigma"].tolist(), strict=True), strict=True))


def table(found: dict[str, dict[str, tuple[float, float]]], pictures: dict[str, str]) -> str:
    """docs/controls.md."""
    columns = [*(f"{name}, mm" for name in found), "published, mm"]
    text = [
        "# The 30 controls",
        "",
        "Written by `docs/measures_picture.py` from `editing.CONTROLLERS` and finished runs: do not edit by hand.",
        "",
        "Every control is one measurement of a neutral face, in millimetres, and is set in its standard deviations.",
        "Points are found by landmarks and by the extremes of the labelled parts, never by vertex numbers; paired",
        "measures are the mean of both sides; positions of a part count from the centre of its bounding box. Given are",
        "mean ± standard deviation over the random, decoded faces of a run. *Published* is the authors' code on Basel",
        "faces of FFHQ photographs; it measures positions of parts on the whole face instead (–). Parts are outlined",
        "differently on each face model, so compare the columns with care.",
        "",
        *(f"![What is measured, on the {name} face](img/{file})" for name, file in pictures.items()),
        "",
        "| | control | measures | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for controller in CONTROLLERS:
        cells = [_cell(values.get(controller.key)) for values in (*found.values(), PUBLISHED)]
        text.append(
            f"| {NUMBERS[controller.key]} | `{controller.key}` | {controller.definition} | " + " | ".join(cells) + " |"
        )
    return "\n".join(text) + "\n"


def _cell(value: tuple[float, float] | None) -> str:
    return "–" if value is None else f"{value[0]:.1f} ± {value[1]:.2f}"


def main() -> None:
    """Write the pictures and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="folder of a finished run; repeatable")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where controls.md and img/ are written")
    options = parser.parse_args()
    found, pictures = {}, {}
    for run in options.run:
        model = load_part_face_model({s: find_output(run, s) for s in ("build_dataset", "train_segments")})
        drawing = Drawing(model.face_model, model.segments.layout.labels, measuring_points(model))
        name = model.face_model.name.partition("-")[0]
        studio = Studio(model.face_model.faces, DRAWN)
        pictures[name] = f"measures_{name}.jpg"
        sheet = sheet_of([panel(drawing, studio, view) for view in views()])
        (options.docs / "img" / pictures[name]).write_bytes(jpeg_bytes(sheet))
        found[name] = statistics(run)
    (options.docs / "controls.md").write_text(table(found, pictures), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Do a face's files open elsewhere? Writes each as GLB and asks the Khronos validator, Blender and three.js.

python docs/opens_elsewhere/check.py FACE.json ... --bpy-python PATH --node-modules DIR [--picture docs/img/blender.jpg]

For each face a row: size, what the validator says, and how far the vertices of Blender and three.js, with targets
driven to -1 and +1 and a mixture of both families, lie from our own decoder's linearisation, in metres. The picture
shows the last face in Blender: neutral, nose width at +3 and -3, and an expression.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from programs import Opened, Pose, open_in_blender, open_in_three, validator_reports

from editing import control_morphs, expression_morphs
from flows.face_editor import editor_of
from flows.face_file import export_face, read_face
from flows.pictures import Rgb, jpeg_bytes, montage
from flows.run_model import load_controllers, load_part_face_model
from flows.store import find_output

STAGES = ("build_dataset", "train_segments", "learn_modes", "fit_controllers")
PIXELS = 300


@dataclass(frozen=True)
class Linear:
    """Our own linearisation: the face (V, 3) and its targets {name: (V, 3)}, mm."""

    vertices: NDArray[np.floating]
    controls: dict[str, NDArray[np.float32]]
    expressions: dict[str, NDArray[np.float32]]

    def posed(self, pose: Pose) -> NDArray[np.float64]:
        """Vertices (V, 3) in metres of {target: weight}."""
        targets = self.controls | self.expressions
        moved = sum((weight * targets[name].astype(np.float64) for name, weight in pose.items()), np.zeros(3))
        return (self.vertices + moved) / 1000


def linear_face(source: Path) -> Linear:
    """The linearisation of a ``face.json``, decoded by its run."""
    stored = read_face(source)
    inputs = {stage: find_output(stored.run, stage) for stage in STAGES}
    model = load_part_face_model(inputs)
    editor = editor_of(model, stored.state, *load_controllers(inputs, model))
    face = model.face_model
    expressions = expression_morphs(face.ex_basis, face.ex_names, face.ex_range)
    return Linear(editor.vertices().astype(np.float64), control_morphs(editor).deltas, expressions)


def poses_of(face: Linear) -> list[Pose]:
    """Neutral, four controls and two expressions at -1 and +1, and a mixture of both families."""
    controls, expressions = list(face.controls), list(face.expressions)
    driven = [*controls[:: max(1, len(controls) // 4)][:4], *expressions[:: max(1, len(expressions) // 2)][:2]]
    mixed: Pose = {controls[-1]: 1.0, controls[0]: -1.0, **dict.fromkeys(expressions[:1], 1.0)}
    return [{}, *({name: sign} for name in driven for sign in (-1.0, 1.0)), mixed]


def largest_error(face: Linear, poses: Sequence[Pose], opened: Opened) -> float:
    """Largest distance over poses and vertices, metres; ValueError where names are missing or out of order."""
    wanted = [*face.controls, *face.expressions]
    if opened.names != wanted:
        raise ValueError(f"expected {len(wanted)} targets {wanted[:3]} ..., found {opened.names[:3]} ...")
    pairs = zip(poses, opened.vertices, strict=True)
    return max(float(np.linalg.norm(shown - face.posed(pose), axis=1).max()) for pose, shown in pairs)


def picture_poses(face: Linear) -> dict[str, Pose]:
    """What the picture shows, by title."""
    happy = [name for name in face.expressions if "smile" in name.lower()]
    talking = [name for name in face.expressions if name == "jawOpen"]
    return {
        "neutral": {},
        "nose width +3": {"id_nose_width": 3.0},
        "nose width -3": {"id_nose_width": -3.0},
        "smile and jawOpen": {**dict.fromkeys(happy, 0.8), **dict.fromkeys(talking, 0.3)},
    }


def rendered(path: Path) -> Rgb:
    """A picture with transparency (H, W, 4) on white (H, W, 3)."""
    with Image.open(path) as stored:
        white = Image.new("RGBA", stored.size, "white")
        white.alpha_composite(stored.convert("RGBA"))
    return np.asarray(white.convert("RGB"))


def main() -> None:
    """Print the table; write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="+", help="face.json of neo3df, its run beside it")
    parser.add_argument("--bpy-python", type=Path, required=True, help="an interpreter with bpy")
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with gltf-validator and three")
    parser.add_argument("--chromium", type=Path, default=Path(shutil.which("chromium") or "chromium"))
    parser.add_argument("--picture", type=Path, help="JPEG to write")
    given = parser.parse_args()
    print("| face | vertices | controls + expressions | MB | errors, warnings, infos, hints | bpy, m | three.js, m |")
    print("|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for number, source in enumerate(given.faces):
            work = Path(folder) / str(number)
            work.mkdir()
            glb, face = export_face(source, work / "face.glb"), linear_face(source)
            issues = validator_reports([glb], given.node_modules)[0]["issues"]
            counts = ", ".join(str(issues[f"num{kind}"]) for kind in ("Errors", "Warnings", "Infos", "Hints"))
            poses = poses_of(face)
            blender = open_in_blender(glb, poses, given.bpy_python, work / "blender")
            three = open_in_three(glb, poses, given.node_modules, given.chromium)
            print(
                f"| {source.parent.name}/{source.name} | {len(face.vertices)} | {len(face.controls)} + "
                f"{len(face.expressions)} | {glb.stat().st_size / 1e6:.1f} | {counts} | "
                f"{largest_error(face, poses, blender):.1e} ({blender.version}) | "
                f"{largest_error(face, poses, three):.1e} (r{three.version}) |",
                flush=True,
            )
        if given.picture:
            shown = picture_poses(face)
            open_in_blender(glb, list(shown.values()), given.bpy_python, work / "picture", PIXELS)
            row = [rendered(work / "picture" / f"{i}.png") for i in range(len(shown))]
            given.picture.write_bytes(jpeg_bytes(montage([row], titles=list(shown))))


if __name__ == "__main__":
    main()

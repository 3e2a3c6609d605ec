"""``face.json``: one editable face of a run, and the files that other programs open (OBJ, PLY, GLB, STL)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from editing import (
    ControllerMap,
    FaceEditor,
    FaceState,
    control_morphs,
    export_glb,
    export_obj,
    export_ply,
    export_stl,
    expression_morphs,
)

from .atomic import replacing
from .contracts import PARTS, REGIONS
from .errors import UserError
from .face_editor import editor_of
from .face_texture import FaceTexture, read_texture
from .run_model import PartFace, PartFaceModel, Pose, load_controllers, load_part_face_model
from .store import find_output

BACK_WALL_MM = 5.0
"""How far behind the face the flat back of a printed one lies."""


@dataclass(frozen=True)
class RunFace:
    """An editable face with the run that decodes it, the topology it belongs to, and its place in the photo.

    A relative ``run`` is relative to the folder of the file, so that a run and the faces in it can be moved.
    """

    name: str
    run: Path
    topology: str
    state: FaceState
    pose: Pose

    def write(self, path: Path) -> Path:
        """Write the face's JSON with the run, the topology and the pose beside it, whole or not at all."""
        content = json.loads(self.state.to_json()) | {
            "name": self.name,
            "run": str(self.run),
            "topology_hash": self.topology,
            "pose": {
                "expression": self.pose.expression[0].tolist(),
                "angles_rad": self.pose.angles[0].tolist(),
                "translation_mm": self.pose.translation[0].tolist(),
            },
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path


def state_in(text: str) -> FaceState:
    """The editor's state in the text of a face file, with or without what :class:`RunFace` writes beside it."""
    return FaceState.from_json(text, beside=("name", "run", "topology_hash", "pose"))


def read_face(path: Path) -> RunFace:
    """Read what :meth:`RunFace.write` wrote; UserError in one line for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
        state, content = state_in(text), json.loads(text)
        at = content["pose"]
        pose = Pose(*(torch.tensor([at[key]]) for key in ("expression", "angles_rad", "translation_mm")))
        run = (path.parent / content["run"]).resolve()
        return RunFace(content["name"], run, content["topology_hash"], state, pose)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read face {path}: {error}") from error
    except KeyError as error:
        raise UserError(f"{path} lacks {error}: give a face.json written by neo3df") from error


def state_of(face: PartFace, controls: Mapping[str, float] | None = None, row: int = 0) -> FaceState:
    """The editor's state of one face, with controls {"nose.width": sigma} that are not yet in its latents."""
    latents = {region: face.latents[region][row].numpy() for region in REGIONS}
    return FaceState.create(latents, face.offsets[row].numpy(), controls)


def named_controls(controllers: ControllerMap, flat: NDArray[np.floating]) -> dict[str, float]:
    """Controls of the five parts, in one row as the fitter has them, by full name."""
    names = [f"{part}.{name}" for part in PARTS for name in controllers.region(part).names]
    return {name: float(value) for name, value in zip(names, flat, strict=True)}


def write_mesh(model: PartFaceModel, editor: FaceEditor, path: Path, texture: FaceTexture | None = None) -> Path:
    """Write the editor's face as ``.obj``, ``.ply``, ``.glb`` or ``.stl``.

    With its skin where there is a ``texture``, else in the colours of the parts. The GLB has every control and every
    expression as a named morph target; the STL is closed by a back wall, for printing.
    """
    vertices, labels = editor.vertices(), model.segments.layout.labels
    faces, uv = model.face_model.faces, model.face_model.uv if texture is None else texture.uv
    picture = None if texture is None else texture.picture
    colours = None if texture is None else texture.colours
    match path.suffix:
        case ".obj":
            given = None if picture is not None else colours
            export_obj(path, vertices, faces, uv=uv, labels=labels, texture=picture, vertex_colours=given)
        case ".ply":
            export_ply(path, vertices, faces, labels=labels, vertex_colours=colours)
        case ".glb":
            _write_glb(model, editor, path, texture)
        case ".stl":
            export_stl(path, vertices, faces, back_wall_mm=BACK_WALL_MM)
        case _:
            raise UserError(f"cannot write {path.name}: the ending must be .obj, .ply, .glb or .stl")
    return path


def _write_glb(model: PartFaceModel, editor: FaceEditor, path: Path, texture: FaceTexture | None) -> None:
    face_model = model.face_model
    controls = control_morphs(editor)
    expressions = expression_morphs(face_model.ex_basis, face_model.ex_names, face_model.ex_range)
    extras = {
        "morph_families": {"controls": list(controls.deltas), "expressions": list(expressions)},
        "morph_unit": {"controls": "1 = 1 sigma", "expressions": "1 = full"},
        "morph_max_error_mm_at_3_sigma": controls.max_error_mm,
        "morph_range_sigma": controls.range_sigma,
    }
    export_glb(
        path,
        editor.vertices(),
        face_model.faces,
        uv=face_model.uv if texture is None else texture.uv,
        labels=model.segments.layout.labels if texture is None else None,
        vertex_colours=texture.colours if texture is not None and texture.picture is None else None,
        texture=None if texture is None else texture.picture,
        morph_targets={**controls.deltas, **expressions},
        extras=extras,
    )


def export_face(source: Path, target: Path) -> Path:
    """``neo3df export FACE -o FILE``: decode a ``face.json`` with its run's model and write the textured mesh."""
    stored = read_face(source)
    stages = ("build_dataset", "train_segments", "learn_modes", "fit_controllers")
    inputs = {stage: find_output(stored.run, stage) for stage in stages}
    model = load_part_face_model(inputs)
    topology = model.face_model.topology_hash()
    if topology != stored.topology:
        raise UserError(f"{source} belongs to topology {stored.topology[:12]}, run {stored.run} has {topology[:12]}")
    controllers, points = load_controllers(inputs, model)
    texture = read_texture(source.parent, model.face_model)
    return write_mesh(model, editor_of(model, stored.state, controllers, points), target, texture)

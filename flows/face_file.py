"""``face.json``: one editable face of a run, its editor, and the files that other programs open (OBJ, PLY, GLB)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing import (
    ControllerMap,
    FaceEditor,
    FaceState,
    MeasurementLandmarks,
    control_morphs,
    export_glb,
    export_obj,
    export_ply,
)

from .atomic import replacing
from .contracts import PARTS, REGIONS
from .errors import UserError
from .run_model import PartFace, PartFaceModel, Pose, load_controllers, load_part_face_model
from .store import find_output

Array = NDArray[np.floating]


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


def read_face(path: Path) -> RunFace:
    """Read what :meth:`RunFace.write` wrote; UserError in one line for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
        state, content = FaceState.from_json(text), json.loads(text)
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


def editor_of(
    model: PartFaceModel, state: FaceState, controllers: ControllerMap, points: MeasurementLandmarks | None = None
) -> FaceEditor:
    """An editor of one face. Edits of the rest carry the parts along by what the offset regressor says they move."""
    base_rest = torch.from_numpy(np.array(state.latents["rest"], np.float32))[None]

    @torch.no_grad()
    def decode(latents: dict[str, NDArray[np.float64]], offsets: NDArray[np.float64] | None) -> tuple[Array, Array]:
        z = {region: _row(values) for region, values in latents.items()}
        placed = model.segments.offsets(z["rest"])
        if offsets is not None:
            placed = _row(offsets) + placed - model.segments.offsets(base_rest)
        composed, rest = model.compose(z, placed)
        return composed[0].numpy(), rest[0].numpy()

    @torch.no_grad()
    def blend(composed: Array, rest: Array) -> Array:
        return model.blender(_row(composed), _row(rest))[0].numpy()

    return FaceEditor(state, decode, blend, controllers, points)


def _row(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))[None]


def write_mesh(model: PartFaceModel, editor: FaceEditor, path: Path) -> Path:
    """Write the editor's face as ``.obj``, ``.ply`` or ``.glb``; the GLB has every control as a named morph target."""
    vertices, labels = editor.vertices(), model.segments.layout.labels
    faces, uv = model.face_model.faces, model.face_model.uv
    match path.suffix:
        case ".obj":
            export_obj(path, vertices, faces, uv=uv, labels=labels)
        case ".ply":
            export_ply(path, vertices, faces, labels=labels)
        case ".glb":
            morphs = control_morphs(editor)
            extras = {"morph_unit": "1 sigma", "morph_max_error_mm_at_3_sigma": morphs.max_error_mm}
            export_glb(path, vertices, faces, uv=uv, labels=labels, morph_targets=morphs.deltas, extras=extras)
        case _:
            raise UserError(f"cannot write {path.name}: the ending must be .obj, .ply or .glb")
    return path


def export_face(source: Path, target: Path) -> Path:
    """``neo3df export FACE -o FILE``: decode a ``face.json`` with its run's model and write the mesh."""
    stored = read_face(source)
    stages = ("build_dataset", "train_segments", "learn_modes", "fit_controllers")
    inputs = {stage: find_output(stored.run, stage) for stage in stages}
    model = load_part_face_model(inputs)
    topology = model.face_model.topology_hash()
    if topology != stored.topology:
        raise UserError(f"{source} belongs to topology {stored.topology[:12]}, run {stored.run} has {topology[:12]}")
    controllers, points = load_controllers(inputs, model)
    return write_mesh(model, editor_of(model, stored.state, controllers, points), target)

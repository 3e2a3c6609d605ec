"""``neo3df edit``: a face of a finished run in the browser editor."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from editing import EditableFaces, EditorServer, FaceEditor, FaceState, serve_editor

from .errors import UserError
from .face_editor import editor_of
from .face_file import RunFace, read_face, state_in, write_mesh
from .face_texture import read_texture
from .reconstruct import newest_run
from .run_model import Pose, load_controllers, load_part_face_model
from .store import find_output

STAGES_NEEDED = ("build_dataset", "train_segments", "learn_modes", "fit_controllers")


class RunFaces:
    """The faces of one run, as the browser editor wants them."""

    def __init__(self, run_dir: Path, face: Path | None = None) -> None:
        """Load the run's models; ``face``: the file of the face that tabs begin with, the mean face by default."""
        start = None if face is None else read_face(face)
        self.run_dir = run_dir.resolve()
        inputs = {stage: find_output(run_dir, stage) for stage in STAGES_NEEDED}
        self.model = load_part_face_model(inputs)
        self.controllers, self.points = load_controllers(inputs, self.model)
        self.topology = self.model.face_model.topology_hash()
        if start is not None and start.topology != self.topology:
            raise UserError(
                f"{start.name} belongs to topology {start.topology[:12]}, run {run_dir} has {self.topology[:12]}"
            )
        self.start = self._mean_face() if start is None else start
        self.texture = None if face is None else read_texture(face.parent, self.model.face_model)

    def editable(self) -> EditableFaces:
        """Everything the browser editor needs to know."""
        layout, free = self.model.segments.layout, np.zeros(len(self.model.labels), bool)
        area = self.model.blender.area
        free[area.vertex_ids[area.free]] = True
        return EditableFaces(
            self.open,
            layout.faces,
            layout.labels,
            transition=free,
            save=self.save,
            photo=None if self.texture is None else self.texture.colours,
            export=self.export,
            title=f"neo3df: {self.start.name}",
        )

    def open(self, text: str | None) -> FaceEditor:
        """An editor of the face in a face file's text, or of the start; ValueError for a face of another run."""
        state = self.start.state if text is None else self._read(text)
        return editor_of(self.model, state, self.controllers, self.points)

    def save(self, editor: FaceEditor, text: str | None) -> str:
        """The text of the editor's face file, with the pose and name of the file it was opened from."""
        face = self.start
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "face.json"
            if text is not None and "pose" in json.loads(text):
                path.write_text(text, encoding="utf-8")
                face = read_face(path)
            replace(face, run=self.run_dir, state=editor.state).write(path)
            return path.read_text(encoding="utf-8")

    def export(self, editor: FaceEditor, path: Path) -> None:
        """Write the editor's face as a mesh, with the start's texture where it was edited from the start."""
        texture = self.texture if editor.loaded == self.start.state else None
        write_mesh(self.model, editor, path, texture)

    def _read(self, text: str) -> FaceState:
        state, content = state_in(text), json.loads(text)
        topology, run = content.get("topology_hash", self.topology), Path(content.get("run", self.run_dir))
        if topology != self.topology:
            raise ValueError(f"the file's face has topology {topology[:12]}, this run has {self.topology[:12]}")
        if run.is_absolute() and run.resolve() != self.run_dir:
            raise ValueError(f"the file's face belongs to run {run}, this editor shows {self.run_dir}")
        return state

    def _mean_face(self) -> RunFace:
        n_expressions = self.model.face_model.ex_basis.shape[2]
        pose = Pose(torch.zeros(1, n_expressions), torch.zeros(1, 3), torch.zeros(1, 3))
        state = FaceState.create(self.controllers.base_latents())
        return RunFace("mean face", self.run_dir, self.topology, state, pose)


def serve_face(face: Path | None, *, run_dir: Path | None, host: str, port: int, open_browser: bool) -> EditorServer:
    """Start the editor on a face file, or on the mean face of a run.

    Args:
        face: a ``face.json``; its own run is used unless ``run_dir`` names another place of it.
        run_dir: run folder; default: the face's, or the newest below ``runs``.
        host: address to listen on.
        port: port to listen on, or the next free one.
        open_browser: open the page in the system's browser.

    Raises:
        UserError: no face file, no finished run, or a face of another topology.
    """
    folder = run_dir or (newest_run(Path("runs")) if face is None else read_face(face).run)
    return serve_editor(RunFaces(folder, face).editable(), host=host, port=port, open_browser=open_browser)

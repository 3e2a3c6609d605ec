"""``neo3df reconstruct``: photographs, with masks if there are any, to meshes, overlays and editable faces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_builder import FaceModel, LandmarkEstimator, Photo, Rejected, five_points, read_photos
from editing import ControllerMap
from fitting import Camera, render_labels

from .atomic import replacing
from .config import RunConfig, parse_config
from .console import print_reconstructions
from .errors import UserError
from .face_editor import editor_of
from .face_file import RunFace, named_controls, state_of, write_mesh
from .face_fit import FittedFaces, PartFitter
from .face_texture import photo_texture
from .fit_table import write_fits
from .pictures import overlay, png_bytes
from .progress import make_progress, track
from .real_photos import PhotoPreparer, PreparedPhoto, RejectedInput, rejected_input
from .run_model import PartFace, PartFaceModel, Pose, load_controllers, load_network, load_part_face_model
from .sources import PhotoEntry, distinct_names, list_photos
from .store import find_output, load_run
from .tables import write_table

STAGES_NEEDED = ("build_dataset", "train_segments", "learn_modes", "train_regressors", "fit_controllers", "fine_tune")


@dataclass(frozen=True)
class Reconstruction:
    """One photo's face before and after fitting to its mask; without a mask both are the start."""

    photo: Photo
    prepared: PreparedPhoto
    face: PartFace
    controls: dict[str, float]
    pose: Pose
    camera: Camera
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    fitted: FittedFaces | None


class Reconstructor:
    """A finished run, ready for photographs it never saw."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        inputs = {stage: find_output(run_dir, stage) for stage in STAGES_NEEDED}
        self.config: RunConfig = parse_config(load_run(run_dir).config, source=str(run_dir))
        self.model: PartFaceModel = load_part_face_model(inputs)
        self.controllers: ControllerMap = load_controllers(inputs, self.model)[0]
        self._network = load_network(inputs, self.config.regressors.encoder, fine_tuned=True)
        self._fitter = PartFitter(self.model, self.controllers, self.config.fit)
        self._estimator = LandmarkEstimator(self.face_model)
        self._preparer = PhotoPreparer()

    @property
    def face_model(self) -> FaceModel:
        """The run's face model."""
        return self.model.face_model

    def reconstruct(self, photo: Photo, name: str) -> Reconstruction | RejectedInput:
        """Crop, landmarks, start, and a fit where the photo has a mask; ``name`` is the face's."""
        prepared = self._preparer.prepare(photo, PhotoEntry(photo.path, name, name, True, "photo"))
        if isinstance(prepared, RejectedInput):
            return prepared
        estimate = self._estimator.estimate(prepared.landmarks[None])
        pose = Pose(*(torch.from_numpy(x) for x in (estimate.expression, estimate.angles, estimate.translation)))
        start = self._start(prepared, estimate.identity)
        camera = Camera.deep3d().to_photo(
            prepared.scale.tolist(), prepared.offset.tolist(), photo.image.shape[1], photo.image.shape[0]
        )
        before = self._labels(start, pose, camera)
        if not prepared.has_mask:
            return Reconstruction(photo, prepared, start, {}, pose, camera, before, before, None)
        fitted = self._fitter.fit(start, pose, prepared.labels[None], prepared.ignore[None])
        after = self._labels(fitted.face, fitted.pose, camera)
        controls = named_controls(self.controllers, fitted.controls[0])
        return Reconstruction(photo, prepared, fitted.base, controls, fitted.pose, camera, before, after, fitted)

    def _start(self, prepared: PreparedPhoto, identity: NDArray[np.float32]) -> PartFace:
        if self.config.fit.start == "network":
            points = five_points(prepared.landmarks)[None].astype(np.float32)
            face = self._network(prepared.crop[None], points)
            return PartFace(self.model.padded(face.latents), face.offsets)
        with torch.no_grad():
            return self.model.encode(torch.from_numpy(self.face_model.shape(identity)))

    @torch.no_grad()
    def _labels(self, face: PartFace, pose: Pose, camera: Camera) -> NDArray[np.uint8]:
        vertices = self.model.posed(self.model.neutral(face, self.model.blender), pose)
        return render_labels(vertices, self.model.labels, camera, self.model.faces)[0].numpy()


def reconstruct(photos: Sequence[Path], *, out: Path, masks: Path | None, run_dir: Path | None) -> None:
    """Write ``OUT/<stem>/`` for every photo, and the fits and rejected tables; see the README for the files."""
    run_dir = run_dir or newest_run(Path("runs"))
    paths = [path for source in photos for path in list_photos(source)]
    if masks is not None and masks.is_file() and len(paths) > 1:
        raise UserError(f"{masks} is one mask for {len(paths)} photographs; give the folder of the masks")
    named = list(zip(paths, distinct_names(paths), strict=True))
    machine = Reconstructor(run_dir)
    made: list[Reconstruction] = []
    rejected: list[RejectedInput] = []
    for path, name in track(make_progress(), named, "reconstruct"):
        for item in read_photos(path, masks):
            result = rejected_input(item) if isinstance(item, Rejected) else machine.reconstruct(item, name)
            if isinstance(result, RejectedInput):
                rejected.append(result)
            else:
                _write_face(machine, result, out / result.prepared.face_id)
                made.append(result)
    _write_tables(machine, made, rejected, out)
    faces = [(r.prepared.face_id, *_mean_iou(r.fitted)) for r in made]
    print_reconstructions(faces, [(r.path, r.code, r.detail) for r in rejected], out)


def newest_run(folder: Path) -> Path:
    """The run under ``folder`` that was finished last; UserError where there is none."""
    records = sorted(folder.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not records:
        raise UserError(f"no run under {folder}; make one with neo3df run, or name one with --run")
    return records[-1].parent


def _mean_iou(fitted: FittedFaces | None) -> tuple[float | None, float | None]:
    if fitted is None:
        return None, None
    before, after = fitted.result.overlap_before, fitted.result.overlap_after
    return float(before.mean_of_parts()[0]), float(after.mean_of_parts()[0])


def _write_face(machine: Reconstructor, made: Reconstruction, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    topology = machine.face_model.topology_hash()
    state = state_of(made.face, made.controls)
    RunFace(made.prepared.face_id, machine.run_dir.resolve(), topology, state, made.pose).write(folder / "face.json")
    editor = editor_of(machine.model, state, machine.controllers)
    with torch.no_grad():
        posed = machine.model.posed(torch.tensor(editor.vertices())[None], made.pose)[0].numpy()
    texture = photo_texture(machine.face_model, machine.model.segments.layout.labels, posed, made.camera, made.photo)
    if texture is not None:
        texture.write(folder)
    for name in ("mesh.obj", "mesh.glb"):
        write_mesh(machine.model, editor, folder / name, texture)
    for name, picture in (
        ("labels.png", made.after),
        ("labels_before.png", made.before),
        ("overlay.png", overlay(made.photo.image, made.after)),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(png_bytes(picture))


def _write_tables(machine: Reconstructor, made: list[Reconstruction], rejected: list[RejectedInput], out: Path) -> None:
    topology = machine.face_model.topology_hash()
    with_mask = [(r.prepared.face_id, r.fitted) for r in made if r.fitted is not None]
    if with_mask:
        names, fitted = zip(*with_mask, strict=True)
        seconds = np.array([f.result.seconds for f in fitted])
        write_fits(out / "fits.parquet", names, fitted, machine.config.fit, topology, seconds)
    table = {key: [getattr(r, key) for r in rejected] for key in ("path", "code", "detail")}
    write_table(out / "rejected.parquet", "rejected", table)

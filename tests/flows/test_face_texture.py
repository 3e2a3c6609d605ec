"""Faces of known skin, drawn into a photo without light, and their texture taken back from it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_builder import Photo, load_face_model
from editing import sample_photo
from fitting import Camera, Renderer, apply_pose, clip_positions
from flows.errors import UserError
from flows.face_texture import FaceTexture, photo_texture, read_texture, texel_map

MAGENTA = np.array([1.0, 0.0, 1.0])
SIZE = 256


@pytest.fixture(scope="module")
def model():
    return load_face_model("synthetic-3k")


@pytest.fixture(scope="module")
def skin(model):
    """A symmetric texture (S, S, 3) with waves a few millimetres long."""
    x, y = (np.arange(SIZE) + 0.5) / SIZE, (np.arange(SIZE) + 0.5) / SIZE
    wave = np.cos(60 * np.abs(x - 0.5))[None, :] * np.cos(50 * y)[:, None]
    picture = np.array([0.75, 0.55, 0.45]) + 0.1 * wave[..., None] * [1, 0.8, 0.5]
    return np.rint(picture * 255).astype(np.uint8)


@dataclass(frozen=True)
class Shot:
    photo: Photo
    camera: Camera
    vertices: np.ndarray
    seen: np.ndarray  # (S, S) bool, texels that the photo shows


def shoot(model, skin, yaw, *, masked, with_hair=False, scale=1):
    """A photo of 500 x 400 pixels, or ``scale`` times that, of the mean face, turned by ``yaw`` degrees, on magenta."""
    camera = replace(Camera.deep3d(), fx=2000.0, fy=2000.0, cx=190.0, cy=260.0, width=400, height=500).resized(scale)
    height, width = camera.height, camera.width
    angles = torch.tensor([[0.05, np.radians(yaw), -0.03]], dtype=torch.float32)
    posed = apply_pose(torch.from_numpy(model.mean)[None], angles, torch.tensor([[3.0, -2.0, 10.0]]))
    renderer = Renderer(model.faces, (height, width), backend="cpu", antialias=False)
    image, raster = renderer(clip_positions(posed, camera), torch.from_numpy(model.uv))
    covered = raster[0, ..., 3].numpy() > 0
    uv = image[0].numpy()[covered]
    colour = np.tile(MAGENTA, (height, width, 1))
    colour[covered] = sample_photo(skin, np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * SIZE)
    ignore = np.zeros((height, width), bool)
    if with_hair:
        ignore[:, 250:300] = True
        colour[ignore] = [0.1, 0.5, 0.1]
    pixels = np.rint(colour * 255).astype(np.uint8)
    mask = covered.astype(np.uint8) if masked else None
    photo = Photo("face", Path("face.png"), pixels, mask, ignore if masked else None, "0")
    return Shot(photo, camera, posed[0].numpy(), frontal(model, posed[0].numpy()))


def frontal(model, vertices):
    """Texels (S, S) whose triangle is turned to the camera by less than 50 degrees."""
    a, b, c = (vertices[model.faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    view = np.array([0, 0, 1000.0]) - a
    cosine = (normal * view).sum(1) / np.linalg.norm(normal, axis=1) / np.linalg.norm(view, axis=1)
    texels = texel_map(model.uv, model.faces, SIZE)
    seen = np.zeros((SIZE, SIZE), bool)
    seen[texels.covered] = cosine[texels.triangle] > np.cos(np.radians(50))
    return seen


def taken(model, shot):
    return photo_texture(model, model.labels, shot.vertices, shot.camera, shot.photo, SIZE)


@pytest.mark.parametrize(("yaw", "masked"), [(0, True), (35, True), (-35, True), (35, False)])
def test_the_skin_comes_back_without_any_background(yaw, masked, model, skin):
    shot = shoot(model, skin, yaw, masked=masked)
    texture = taken(model, shot)
    texels = texel_map(model.uv, model.faces, SIZE)
    error = np.abs(texture.picture / 255 - skin / 255).max(axis=-1)
    assert np.median(error[shot.seen]) < 0.01
    assert np.percentile(error[shot.seen], 90) < 0.05
    central = np.abs(np.arange(SIZE) / SIZE - 0.5) < 0.3
    hidden = texels.covered & ~shot.seen & central[None, :]
    assert np.median(error[hidden]) < 0.05, "hidden skin is like the mirrored side's"
    green = texture.picture[texels.covered][:, 1] / 255
    assert green.min() > 0.4, "magenta has none: no background came in"


def test_what_the_mask_ignores_is_filled(model, skin):
    texture = taken(model, shoot(model, skin, 0, masked=True, with_hair=True))
    texels = texel_map(model.uv, model.faces, SIZE)
    red = texture.picture[texels.covered][:, 0] / 255
    assert red.min() > 0.55, "hair has 0.1"
    error = np.abs(texture.picture / 255 - skin / 255).max(axis=-1)
    assert np.median(error[texels.covered]) < 0.03


def test_a_large_photo_is_averaged_over_texels(model, skin):
    """Every other pixel of it is 30 % brighter or darker; texels of one pixel would show that."""
    shot = shoot(model, skin, 0, masked=True, scale=2)
    checks = np.where(np.indices(shot.photo.mask.shape).sum(axis=0) % 2, 1.3, 0.7)[..., None]
    noisy = np.rint(shot.photo.image * checks).clip(0, 255).astype(np.uint8)
    picture = taken(model, replace(shot, photo=replace(shot.photo, image=noisy))).picture
    assert np.median(np.abs(picture / 255 - skin / 255)[shot.seen]) < 0.03


def test_a_model_without_texture_coordinates_gets_vertex_colours(model, skin):
    shot = shoot(model, skin, 0, masked=True)
    texture = taken(replace(model, uv=None, mirror=None), shot)
    assert texture.picture is None
    truth = sample_photo(skin, np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], 1) * SIZE)
    assert np.median(np.abs(texture.colours / 255 - truth)) < 0.02


def test_a_face_beside_the_photo_has_no_texture(model, skin):
    shot = shoot(model, skin, 0, masked=True)
    assert taken(model, replace(shot, vertices=shot.vertices + np.array([400, 0, 0]))) is None


def test_a_texture_reads_back_as_it_was_kept(model, skin, tmp_path):
    colours = np.zeros((model.n_vertices, 3), np.uint8)
    FaceTexture(colours, skin).write(tmp_path)
    again = read_texture(tmp_path, model)
    np.testing.assert_array_equal(again.picture, skin)
    wanted = sample_photo(skin, np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], 1) * SIZE)
    np.testing.assert_allclose(again.colours / 255, wanted, atol=0.003)
    bare = replace(model, uv=None)
    assert read_texture(tmp_path, bare) is None
    colours[:, 1] = np.arange(model.n_vertices) % 251
    FaceTexture(colours, None).write(tmp_path)
    np.testing.assert_array_equal(read_texture(tmp_path, bare).colours, colours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colours.npy", "texture.png"]


def test_damaged_and_foreign_textures_are_refused(model, tmp_path):
    (tmp_path / "texture.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cannot read the face's texture .*texture\.png: cannot identify"):
        read_texture(tmp_path, model)
    np.save(tmp_path / "colours.npy", np.zeros((5, 3), np.uint8))
    with pytest.raises(UserError, match=r"it holds uint8 \(5, 3\), expected uint8 \(3026, 3\)"):
        read_texture(tmp_path, replace(model, uv=None))

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from dataset_builder.face_model import FaceModel
from dataset_builder.parts import LABEL_IDS
from dataset_builder.procedural import (
    build_procedural_face,
    make_photos,
    render_photo,
    sample_appearance,
    valid_identity,
)
from dataset_builder.procedural.noise import fractal_noise, look_up
from dataset_builder.procedural.studio import boundary_loops, build_scene

pytest.importorskip("open3d", reason="synthetic photographs need the extra 'photos'")


@pytest.fixture(scope="module")
def model():
    return build_procedural_face(2500)


@pytest.fixture(scope="module")
def photos(model):
    return list(make_photos(model, 3, seed=5, size=112))


def test_photos_have_the_promised_shapes_and_ids(photos):
    for photo in photos:
        assert photo.image.shape == (112, 112, 3)
        assert photo.image.dtype == np.uint8
        assert photo.mask.shape == (112, 112)
        assert photo.mask.dtype == np.uint8
        assert set(np.unique(photo.mask)) == set(range(7))
        assert photo.landmarks.shape == (68, 2)
        assert photo.image.std() > 15


def test_photo_i_depends_on_seed_and_i_only(model, photos):
    first = next(make_photos(model, 1, seed=5, size=112))
    np.testing.assert_array_equal(first.image, photos[0].image)
    np.testing.assert_array_equal(first.mask, photos[0].mask)
    other = next(make_photos(model, 1, seed=6, size=112))
    assert np.abs(other.image.astype(int) - first.image).mean() > 5


def test_poses_stay_in_their_ranges(photos):
    angles = np.degrees([p.angles for p in photos])
    assert (np.abs(angles) <= [10, 20, 5]).all()
    assert np.ptp(angles[:, 1]) > 0


def front(model, **values):
    look = replace(sample_appearance(3), hair=None)
    face = np.array([values.get(name, 0.0) for name in model.ex_names])
    return render_photo(model, np.zeros(64), face, np.zeros(3), np.zeros(3), look, 224)


def test_mask_of_the_mean_face_is_symmetric_and_of_human_size(model):
    mask = front(model).mask
    assert (mask == mask[:, ::-1]).mean() > 0.99
    area = {name: int((mask == id_).sum()) for name, id_ in LABEL_IDS.items()}
    reference = {"eyebrows": 402, "eyes": 235, "nose": 1195, "upper_lip": 245, "lower_lip": 259}
    for name, value in reference.items():
        assert area[name] == pytest.approx(value, rel=0.15), name


def test_landmarks_lie_on_their_parts_in_the_mask(model):
    photo = front(model)
    for numbers, part in ((range(36, 48), "eyes"), (range(48, 60), None), (range(28, 31), "nose")):
        ids = {LABEL_IDS[part]} if part else {LABEL_IDS["upper_lip"], LABEL_IDS["lower_lip"]}
        for column, row in photo.landmarks[list(numbers)]:
            r, c = int(row), int(column)
            assert ids & set(photo.mask[r - 1 : r + 2, c - 1 : c + 2].ravel().tolist())


def test_parts_look_different_from_the_skin_around_them(model):
    photo = front(model)
    light = photo.image.astype(float).mean(2)
    skin = np.median(light[photo.mask == LABEL_IDS["rest"]])
    assert np.median(light[photo.mask == LABEL_IDS["eyebrows"]]) < 0.85 * skin
    assert np.ptp(np.percentile(light[photo.mask == LABEL_IDS["eyes"]], [5, 95])) > 50


def test_open_mouth_shows_background_between_the_lips(model):
    closed, opened = front(model).mask, front(model, jaw_open=1.0).mask
    row, column = 148, 112
    assert closed[row, column] != 0
    assert opened[row, column] == 0


def test_colours_do_not_depend_on_the_number_of_triangles_much(model):
    finer = build_procedural_face(5000)
    a, b = front(model).image.astype(float), front(finer).image.astype(float)
    assert np.abs(a - b).mean() < 6


def test_nothing_pokes_through_the_skin(model):
    people = valid_identity(model, model.sample(6, seed=8))
    for k, identity in enumerate(people):
        angles = np.radians([8 * (-1) ** k, 12 * (k - 3), 0])
        look = replace(sample_appearance(k), hair=None)
        photo = render_photo(model, identity, np.zeros(model.n_expression), angles, np.zeros(3), look, 112)
        holes = binary_fill_holes(photo.mask > 0) & (photo.mask == 0)
        assert holes.sum() == 0


def test_translation_moves_mask_and_landmarks_together(model):
    look = sample_appearance(3)
    still = render_photo(model, np.zeros(64), np.zeros(model.n_expression), np.zeros(3), np.zeros(3), look, 112)
    moved = render_photo(
        model, np.zeros(64), np.zeros(model.n_expression), np.zeros(3), np.array([9.0, 0, 0]), look, 112
    )
    shift = (moved.landmarks - still.landmarks)[:, 0].mean()
    rows = [np.argwhere(p.mask == LABEL_IDS["nose"])[:, 1].mean() for p in (still, moved)]
    assert rows[1] - rows[0] == pytest.approx(shift, abs=0.4)
    assert shift == pytest.approx(9 * 507.5 / 970, abs=0.3)


def test_noise_is_periodic_and_standardised():
    texture = fractal_noise(np.random.default_rng(0), 1.0)
    assert texture.std() == pytest.approx(1.0, abs=1e-3)
    u, v = np.random.default_rng(1).uniform(-300, 300, (2, 50))
    np.testing.assert_allclose(look_up(texture, u, v), look_up(texture, u + 256, v - 512), atol=1e-3)
    assert look_up(texture, np.array([3.0]), np.array([7.0]))[0] == pytest.approx(texture[3, 7])


def test_boundary_loops_are_the_rim_and_the_mouth(model):
    loops = sorted(boundary_loops(model.faces), key=len)
    assert len(loops) == 2
    assert set(model.labels[loops[0]].tolist()) == {LABEL_IDS["upper_lip"], LABEL_IDS["lower_lip"]}
    assert set(model.labels[loops[1]].tolist()) == {LABEL_IDS["rest"]}


def test_appearance_repeats_and_varies():
    a, b, c = sample_appearance(1), sample_appearance(1), sample_appearance(2)
    np.testing.assert_array_equal(a.skin, b.skin)
    assert not np.array_equal(a.skin, c.skin)


def test_odd_sizes_are_refused(model):
    with pytest.raises(ValueError, match="photo size is 8 pixels, must be 16 to 2048"):
        next(make_photos(model, 1, seed=0, size=8))


def test_only_built_in_faces_can_be_photographed(model):
    plain = FaceModel("plain", "", model.mean, model.id_basis, model.ex_basis, model.faces, model.landmarks68,
                      model.ex_names, model.ex_range)  # fmt: skip
    with pytest.raises(ValueError, match="'plain' has no canonical points"):
        next(make_photos(plain, 1, seed=0))


def test_missing_ray_caster_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ImportError, match=r"neo3df-dataset-builder\[photos\]"):
        build_scene([])

import os
from pathlib import Path

import numpy as np
import pytest

from dataset_builder.eye_caps import boundary_loops, cap_hole
from dataset_builder.ict import ICT_KEYS, eye_cap_vertices, load_ict, mirror_map
from dataset_builder.subdivision import mesh_edges


def disc_with_hole(n):
    """An annulus of 2n triangles around a hole of n vertices (ids n..2n-1), facing +z."""
    turn = np.arange(n) * 2 * np.pi / n
    ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)
    outer, inner = np.arange(n), n + np.arange(n)
    ahead, inner_ahead = np.roll(outer, -1), np.roll(inner, -1)
    faces = np.concatenate([np.stack([outer, ahead, inner_ahead], -1), np.stack([outer, inner_ahead, inner], -1)])
    return np.concatenate([2 * ring, ring]), faces.astype(np.int64)


@pytest.fixture(scope="module")
def ict_path():
    folder = os.environ.get("NEO3DF_ASSETS")
    if not folder or not (Path(folder) / "ict_face.npz").is_file():
        pytest.skip("set NEO3DF_ASSETS to a folder with ict_face.npz")
    return Path(folder) / "ict_face.npz"


@pytest.fixture(scope="module")
def ict(ict_path):
    return load_ict(ict_path)


def test_boundary_loops_follow_the_boundary():
    _, faces = disc_with_hole(7)
    loops = boundary_loops(faces)
    assert [len(loop) for loop in loops] == [7, 7]
    assert {tuple(sorted(loop)) for loop in loops} == {tuple(range(7)), tuple(range(7, 14))}
    sides = set(map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()))
    for loop in loops:
        assert all(side in sides for side in zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True))


def test_boundary_that_touches_itself_is_refused():
    with pytest.raises(ValueError, match="touches itself"):
        boundary_loops(np.array([[0, 1, 2], [0, 3, 4]], np.int64))


@pytest.mark.parametrize("rings", [0, 1, 3])
def test_cap_closes_the_hole_with_the_surface_winding(rings):
    vertices, faces = disc_with_hole(9)
    rim = next(loop for loop in boundary_loops(faces) if loop.min() == 9)
    cap = cap_hole(rim, len(vertices), rings)
    closed = np.concatenate([vertices, cap.weights @ vertices])
    mesh = np.concatenate([faces, cap.faces])
    assert len(closed) == 18 + 9 * rings + 1
    assert len(boundary_loops(mesh)) == 1
    assert len(closed) - len(mesh_edges(mesh)) + len(mesh) == 1
    corners = closed[mesh]
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()
    np.testing.assert_allclose(closed[-1], 0, atol=1e-12)


def test_cap_vertices_are_affine_in_the_rim():
    vertices, faces = disc_with_hole(9)
    rim = boundary_loops(faces)[1]
    cap = cap_hole(rim, len(vertices))
    np.testing.assert_allclose(np.asarray(cap.weights.sum(1)).ravel(), 1, atol=1e-12)
    assert set(cap.weights.nonzero()[1]) == set(rim)
    with pytest.raises(ValueError, match="rim of 3 or more vertices"):
        cap_hole(rim[:2], len(vertices))


def test_mirror_map_is_an_involution_or_none():
    points = np.random.default_rng(0).uniform(1, 50, (20, 3))
    both = np.concatenate([points, points * [-1, 1, 1]])
    np.testing.assert_array_equal(mirror_map(both), np.roll(np.arange(40), 20))
    assert mirror_map(points) is None


def test_narrow_face_with_capped_eyes(ict):
    assert (ict.n_vertices, len(ict.faces)) == (27_628, 54_832)
    assert (ict.n_identity, ict.n_expression) == (100, 53)
    assert sorted(len(loop) for loop in boundary_loops(ict.faces)) == [148, 276]
    assert ict.ex_names[ict.ex_names.index("jawOpen")] == "jawOpen"
    assert (ict.ex_range == [0, 1]).all()
    assert 0 <= ict.uv.min() < ict.uv.max() <= 1
    np.testing.assert_allclose(ict.mean.mean(0), 0, atol=1e-3)
    edges = ict.mean[mesh_edges(ict.faces)]
    assert 1.2 < np.linalg.norm(edges[:, 0] - edges[:, 1], axis=-1).mean() < 1.5


def test_mesh_and_landmarks_are_mirrored(ict):
    np.testing.assert_allclose(ict.mean[ict.mirror], ict.mean * [-1, 1, 1], atol=0.1)
    mirrored = np.sort(ict.mirror[ict.faces], axis=1)
    assert set(map(tuple, mirrored.tolist())) == set(map(tuple, np.sort(ict.faces, axis=1).tolist()))
    assert ict.mirror[ict.landmarks68[36]] == ict.landmarks68[45]
    assert ict.mean[ict.landmarks68[36], 0] < 0


def test_eye_caps_lie_within_the_lids_and_close_with_a_blink(ict):
    caps = eye_cap_vertices(ict)
    assert len(caps) == 2 * 547
    right = caps[ict.mean[caps, 0] < 0]
    canthi = ict.mean[ict.landmarks68[[36, 39]], 0]
    assert canthi[0] - 3 < ict.mean[right, 0].min()
    assert ict.mean[right, 0].max() < canthi[1] + 3
    blink = np.zeros(53, np.float32)
    blink[ict.ex_names.index("eyeBlink_R")] = 1
    shut = ict.shape(np.zeros(100), blink)
    assert np.ptp(shut[right, 1]) < 0.75 * np.ptp(ict.mean[right, 1])


def test_without_subdivision_the_source_vertices_stay(ict_path, ict):
    coarse = load_ict(ict_path, subdivisions=0)
    assert (coarse.n_vertices, len(coarse.faces)) == (6_960, 13_708)
    np.testing.assert_array_equal(coarse.landmarks68, ict.landmarks68)
    np.testing.assert_allclose(coarse.id_basis, ict.id_basis[:6_960])
    assert len(eye_cap_vertices(coarse)) == 2 * 127


def test_unreadable_and_incomplete_archives_are_named(tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"broken\.npz: not a readable NumPy archive"):
        load_ict(broken)
    with pytest.raises(ValueError, match=r"absent\.npz: not a readable NumPy archive"):
        load_ict(tmp_path / "absent.npz")
    partial = tmp_path / "partial.npz"
    np.savez(partial, mean=np.zeros((5, 3)), id_basis=np.zeros((2, 5, 3)))
    with pytest.raises(
        ValueError, match=r"partial\.npz: not the ICT face, the archive lacks ex_basis, ex_names, quads"
    ):
        load_ict(partial)


def test_pickled_arrays_and_wrong_shapes_are_refused(tmp_path):
    arrays = {key: np.zeros(1) for key in ICT_KEYS} | {"n_narrow_verts": np.array(5), "ex_names": np.array(["a"])}
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, **{**arrays, "ex_names": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ValueError, match=r"pickled\.npz: not a readable NumPy archive"):
        load_ict(pickled)
    bent = tmp_path / "bent.npz"
    np.savez(bent, **{**arrays, "mean": np.zeros((5, 3)), "id_basis": np.zeros((2, 4, 3))})
    with pytest.raises(ValueError, match=r"id_basis has shape \(2, 4, 3\) of float64, expected numbers \(\*, 5, 3\)"):
        load_ict(bent)

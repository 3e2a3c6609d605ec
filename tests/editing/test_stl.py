import numpy as np
import pytest

from editing import export_stl
from editing.solid import boundary_loops, closed_solid, minimum_area_cap, welded

HEADER = 84
RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def read_stl(path):
    content = path.read_bytes()
    assert not content.startswith(b"solid"), "readers would take it for text"
    table = np.frombuffer(content, RECORD, offset=HEADER)
    assert int.from_bytes(content[80:84], "little") == len(table)
    return table


def with_holes(face, *centres):
    """The face without the triangles within 7 mm of some points."""
    middle = face.flat[face.faces].mean(axis=1)[:, :2]
    near = [np.linalg.norm(middle - centre, axis=1) < 7 for centre in centres]
    return face.faces[~np.any(near, axis=0)]


def sphere(centre, radius, open_above=None):
    """A closed sphere of triangles, or without what lies above a height; counter-clockwise from outside."""
    n, m = 12, 8
    angle, height = np.meshgrid(np.arange(n) * 2 * np.pi / n, np.linspace(0, np.pi, m + 1)[1:-1])
    ring = np.stack([np.sin(height) * np.cos(angle), np.sin(height) * np.sin(angle), np.cos(height)], -1).reshape(-1, 3)
    points = np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]])
    triangles, top, bottom = [], len(ring), len(ring) + 1
    for i in range(n):
        j = (i + 1) % n
        triangles += [(top, i, j), (bottom, (m - 2) * n + j, (m - 2) * n + i)]
        for row in range(m - 2):
            a, b, c, d = row * n + i, row * n + j, (row + 1) * n + i, (row + 1) * n + j
            triangles += [(a, c, d), (a, d, b)]
    triangles = np.array(triangles)
    if open_above is not None:
        triangles = triangles[points[triangles][..., 2].max(axis=1) < open_above]
    return centre + radius * points, triangles


def triangles_of(cap):
    return {tuple(sorted(triangle)) for triangle in cap.tolist()}


def assert_solid(vertices, faces):
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    keys = sides[:, 0] * len(vertices) + sides[:, 1]
    assert len(np.unique(keys)) == len(keys), "no side twice in one direction"
    assert set(keys) == set(sides[:, 1] * len(vertices) + sides[:, 0]), "every side once in the other direction"
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 1e-9, "no triangle without an area"
    volume = np.einsum("fi,fi->", a, np.cross(b, c)) / 6
    assert volume > 0
    return volume


def test_without_a_wall_the_surface_is_written_as_it_is(face, tmp_path):
    table = read_stl(export_stl(tmp_path / "f.stl", face.vertices, face.faces))
    np.testing.assert_array_equal(table["corners"], face.vertices[face.faces].astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(table["normal"], axis=1), 1, atol=1e-6)
    assert (table["normal"][:, 2] > 0).all(), "the face looks to +z"


def test_a_wall_closes_rim_mouth_and_eyes(face):
    faces = with_holes(face, (0, -34), (30, 26), (-30, 26))
    assert len(boundary_loops(faces)) == 4
    vertices, triangles = closed_solid(face.vertices, faces, 5.0)
    volume = assert_solid(vertices, triangles)
    assert vertices[:, 2].min() == pytest.approx(face.vertices[:, 2].min() - 5)
    assert (vertices[triangles[-1], 2] > vertices[:, 2].min()).all(), "the last holes are closed where they are"
    thicker = assert_solid(*closed_solid(face.vertices, faces, 8.0))
    area = np.pi * 72 * 82
    assert thicker - volume == pytest.approx(3 * area, rel=0.05)


def test_the_volume_of_a_dome_is_known():
    points, triangles = sphere(np.zeros(3), 50.0, open_above=2.0)
    upper = points[triangles][..., 2].min(axis=1) > -1e-6
    volume = assert_solid(*closed_solid(points, triangles[upper], 10.0))
    ring = 50**2 * 12 / 2 * np.sin(2 * np.pi / 12)
    whole = assert_solid(points, triangles)
    assert volume == pytest.approx(whole / 2 + 10 * ring, rel=1e-6)


def test_eyeballs_stay_bodies_of_their_own_closed_or_open(face):
    closed, ball = sphere(np.array([30.0, 26.0, 0.0]), 12.0)
    opened, bowl = sphere(np.array([-30.0, 26.0, 0.0]), 12.0, open_above=0.9)
    vertices = np.concatenate([face.vertices, closed, opened])
    n = len(face.vertices)
    faces = np.concatenate([with_holes(face, (30, 26), (-30, 26)), ball + n, bowl + n + len(closed)])
    assert_solid(*closed_solid(vertices, faces, 5.0))


def test_lips_that_touch_are_welded_first(face):
    """A slit whose two sides lie on each other is no hole once positions are all there is."""
    cut = (np.abs(face.flat[:, 0]) < 15) & (face.flat[:, 1] == -34)
    twin = np.flatnonzero(cut)
    copies = dict(zip(twin.tolist(), range(len(face.vertices), len(face.vertices) + len(twin)), strict=True))
    below = face.flat[face.faces][..., 1].mean(axis=1) < -34
    faces = face.faces.copy()
    faces[below] = np.vectorize(lambda i: copies.get(i, i))(faces[below])
    vertices = np.concatenate([face.vertices, face.vertices[twin]])
    assert len(boundary_loops(faces)) == 2
    assert len(boundary_loops(welded(vertices, faces)[1])) == 1
    assert_solid(*closed_solid(vertices, faces, 5.0))
    vertices[len(face.vertices) :] -= [0, 0.5, 0]
    vertices[len(face.vertices) + len(twin) // 2] += [0, 0.5, 0]  # two openings that touch at one vertex
    assert len(boundary_loops(welded(vertices, faces)[1])) == 3
    assert_solid(*closed_solid(vertices, faces, 5.0))


def test_a_cap_has_the_least_area_and_spares_forbidden_edges():
    crescent = np.array([[0, 0, 0], [4, 2, 0], [8, 0, 0], [4, 1, 0]], dtype=float)
    assert triangles_of(minimum_area_cap(crescent, np.zeros((4, 4), bool))) == {(0, 1, 3), (1, 2, 3)}
    forbidden = np.zeros((4, 4), bool)
    forbidden[1, 3] = forbidden[3, 1] = True
    assert triangles_of(minimum_area_cap(crescent, forbidden)) == {(0, 1, 2), (0, 2, 3)}
    with pytest.raises(ValueError, match="a hole of 4 edges cannot be closed"):
        minimum_area_cap(crescent, np.ones((4, 4), bool))


def test_a_closed_surface_stays_as_it_is():
    points, triangles = sphere(np.zeros(3), 10.0)
    _, faces = closed_solid(points, triangles, 5.0)
    assert len(faces) == len(triangles)


def test_trimesh_finds_the_print_watertight(face, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is a development check only")
    faces = with_holes(face, (0, -34), (30, 26), (-30, 26))
    mesh = trimesh.load(export_stl(tmp_path / "f.stl", face.vertices, faces, back_wall_mm=3))
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert mesh.body_count == 1


def test_what_cannot_be_printed_is_refused(face, tmp_path):
    v, f = face.vertices, face.faces
    for wall in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"back_wall_mm is .*: it must be above 0 mm"):
            export_stl(tmp_path / "f.stl", v, f, back_wall_mm=wall)
    with pytest.raises(ValueError, match="3 edges have triangles of opposite winding or more than two"):
        export_stl(tmp_path / "f.stl", v, np.concatenate([f, f[:1]]), back_wall_mm=5)
    with pytest.raises(ValueError, match=r"vertices have shape .* expected \(V, 3\)"):
        export_stl(tmp_path / "f.stl", v[:, :2], f)
    assert not list(tmp_path.iterdir())

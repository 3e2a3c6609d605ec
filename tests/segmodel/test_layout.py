import numpy as np
import pytest

from segmodel import LABEL_IDS, PARTS, REGIONS, PartLayout
from segmodel._mesh import boundary_vertices, component_ids


def test_regions_partition_the_mesh_and_the_rest_adds_exactly_the_rings(layout):
    cores = np.concatenate([layout.core(region) for region in REGIONS])
    assert sorted(cores) == list(range(layout.n_vertices))
    rings = np.concatenate([layout.ring(part) for part in PARTS])
    assert sorted(layout.vertices("rest")) == sorted(np.concatenate([layout.core("rest"), rings]))
    for part in PARTS:
        np.testing.assert_array_equal(layout.vertices(part), layout.core(part))


def test_ring_is_found_by_walking_every_triangle(layout):
    touching = set()
    for triangle in layout.faces:
        if (layout.labels[triangle] == LABEL_IDS["rest"]).any():
            touching.update(triangle.tolist())
    for part in PARTS:
        expected = [v for v in layout.core(part) if v in touching]
        np.testing.assert_array_equal(layout.ring(part), expected)


def test_seam_is_the_part_border_without_the_mouth_slit(layout, face):
    for part in PARTS:
        border = boundary_vertices(layout.part_faces(part))
        seam = layout.seam(part)
        assert set(seam) <= set(border)
        assert set(seam) <= set(layout.ring(part))
    inner_slit = face.lower_slit[np.abs(face.mean[face.lower_slit, 0]) < 15]
    assert set(inner_slit) <= set(boundary_vertices(layout.part_faces("lower_lip")))
    assert not set(inner_slit) & set(layout.seam("lower_lip"))


@pytest.mark.parametrize("radius", [8.0, 15.0, 30.0])
def test_transition_vertices_are_the_near_skin_and_the_rings(layout, radius):
    area = layout.transition(radius)
    rings = np.concatenate([layout.ring(part) for part in PARTS])
    distance = np.linalg.norm(layout.template[:, None] - layout.template[rings], axis=2).min(axis=1)
    near = (layout.labels == LABEL_IDS["rest"]) & (distance < radius)
    inside = set(area.vertex_ids.tolist())
    assert inside <= set(np.flatnonzero(near)) | set(rings)
    assert set(rings) <= inside
    missing = set(np.flatnonzero(near)) - inside
    assert len(missing) < 0.02 * near.sum()
    assert set(area.vertex_ids[area.handles[: area.n_part_handles]]) == set(rings)
    assert sorted([*area.handles, *area.free]) == list(range(len(area.vertex_ids)))


@pytest.mark.parametrize("radius", [8.0, 30.0, 200.0])
def test_outer_ring_separates_the_free_vertices_from_the_untouched_skin(layout, radius):
    area = layout.transition(radius)
    free = set(area.vertex_ids[area.free].tolist())
    inside = set(area.vertex_ids.tolist())
    for triangle in layout.faces.tolist():
        if free & set(triangle):
            assert set(triangle) <= inside
    rim = boundary_vertices(layout.faces)
    assert not free & set(rim.tolist())


def test_every_component_of_the_area_has_a_handle(layout):
    for radius in (6.0, 10.0, 30.0):
        area = layout.transition(radius)
        component = component_ids(area.faces, len(area.vertex_ids))
        assert set(component) == set(component[area.handles])


def test_no_transition_triangle_lies_inside_a_part(layout):
    area = layout.transition(30.0)
    labels = layout.labels[area.vertex_ids][area.faces]
    assert (labels == LABEL_IDS["rest"]).any(axis=1).all()


def test_rest_labelled_island_without_a_part_is_left_out(face):
    island = np.array([[0, 20, 60], [3, 20, 60], [0, 23, 60], [0, 20, 63]], np.float32)
    n = len(face.mean)
    tetrahedron = n + np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    layout = PartLayout.from_labels(
        np.concatenate([face.labels, np.ones(4, int)]),
        np.concatenate([face.faces, tetrahedron]),
        np.concatenate([face.mean, island]),
    )
    assert not set(range(n, n + 4)) & set(layout.transition(60.0).vertex_ids)


def test_part_vertex_in_no_part_triangle_is_a_handle(face, layout):
    labels = face.labels.copy()
    lonely = int(np.argmin(np.linalg.norm(face.mean[:, :2] - [0, -60], axis=1)))
    labels[lonely] = LABEL_IDS["nose"]
    area = PartLayout.from_labels(labels, face.faces, face.mean).transition(20.0)
    assert lonely in area.vertex_ids[area.handles]


def test_topology_hash_ignores_labels_and_positions_but_not_faces(face, layout):
    other = PartLayout.from_labels(face.labels, face.faces[::-1].copy(), face.mean)
    moved = PartLayout.from_labels(face.labels, face.faces, face.mean + 1)
    assert moved.topology_hash == layout.topology_hash != other.topology_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(labels=a["labels"][:-1]), "labels has shape"),
        (lambda a: a.update(labels=a["labels"].astype(float)), "integer label ids"),
        (lambda a: a["labels"].__setitem__(5, 9), "vertex 5 has label 9"),
        (lambda a: a["labels"].__setitem__(5, 0), "vertex 5 has label 0"),
        (lambda a: a["labels"].__setitem__(a["labels"] == 4, 1), "region 'nose' \\(label 4\\) has 0 vertices"),
        (lambda a: a["faces"].__setitem__((0, 0), 99999), "faces has indices .* to 99999"),
        (lambda a: a.update(faces=a["faces"][:0]), "no rows"),
        (lambda a: a.update(faces=a["faces"][:, :2]), "give \\(F, 3\\) integers"),
        (lambda a: a["template"].__setitem__((3, 1), np.nan), "template vertex 3 is not finite"),
        (lambda a: a.update(template=a["template"][:, :2]), "template has shape"),
    ],
)
def test_bad_input_is_named(face, change, message):
    arrays = {"labels": face.labels.copy(), "faces": face.faces.copy(), "template": face.mean.copy()}
    change(arrays)
    with pytest.raises(ValueError, match=message):
        PartLayout.from_labels(**arrays)


def test_part_far_from_the_rest_is_refused(face):
    labels = face.labels.copy()
    away = np.concatenate([face.mean, face.mean[:3] + 500])
    labels[labels == LABEL_IDS["eyes"]] = 1
    n = len(face.mean)
    with pytest.raises(ValueError, match="'eyes' has no vertex next to a rest vertex"):
        PartLayout.from_labels(
            np.concatenate([labels, np.full(3, 3)]), np.concatenate([face.faces, [[n, n + 1, n + 2]]]), away
        )


def test_bad_radius_and_names_are_refused(layout):
    with pytest.raises(ValueError, match="transition radius is -1"):
        layout.transition(-1)
    with pytest.raises(ValueError, match="leaves no vertex to deform"):
        layout.transition(0.5)
    with pytest.raises(ValueError, match="unknown region 'ear'"):
        layout.vertices("ear")
    with pytest.raises(ValueError, match="unknown part 'rest'"):
        layout.ring("rest")

import math

import numpy as np
import pytest

from editing import (
    CONTROLLERS,
    LABEL_IDS,
    PARTS,
    REGIONS,
    MeasurementLandmarks,
    controller_names,
    measure,
    measurement_values,
)


def test_there_are_thirty_controllers_with_unique_names_in_region_order():
    assert [len(controller_names(region)) for region in REGIONS] == [4, 5, 6, 4, 3, 8]
    assert len({c.key for c in CONTROLLERS}) == 30
    assert [c.region for c in CONTROLLERS] == sorted((c.region for c in CONTROLLERS), key=REGIONS.index)
    assert all(c.unit == "mm" and c.definition.endswith(".") for c in CONTROLLERS)


def test_unknown_region_is_refused():
    with pytest.raises(ValueError, match="unknown region 'chin'"):
        controller_names("chin")


def test_flat_grid_face_has_exactly_the_lengths_it_was_drawn_with(face):
    flat = MeasurementLandmarks.from_template(face.flat, face.labels, face.landmarks68)
    values = measurement_values(measure(face.flat, flat))
    drawn = {
        "eyebrows.length": 36.0,
        "eyebrows.curve_strength": 0.0,
        "eyes.pupils_distance": 60.0,
        "eyes.eye_height": 8.0,
        "eyes.canthus_distance": 24.0,
        "eyes.medial_canthus_height": 0.0,
        "nose.tip_height": -14.0,
        "nose.tip_depth": 0.0,
        "nose.height": 48.0,
        "nose.width": 36.0,
        "upper_lip.bow_width": 12.0,
        "upper_lip.width": 48.0,
        "lower_lip.width": 44.0,
        "rest.maximum_facial_width": 144.0,
        "rest.middle_facial_depth": 0.0,
        "rest.upper_facial_height": 77.0,
    }
    assert {name: values[name] for name in drawn} == pytest.approx(drawn, abs=1e-9)


def plain_measurements(xyz, labels, ids):
    """The 30 rules written out one by one for a single face: the slow twin."""

    def at(name, side=0):
        members = [xyz[i] for i in ids[name][side]]
        return [sum(float(p[axis]) for p in members) / len(members) for axis in range(3)]

    def both(value):
        return (value(0) + value(1)) / 2

    def box(part, axis):
        column = [float(p[axis]) for p, label in zip(xyz, labels, strict=True) if label == LABEL_IDS[part]]
        return min(column), max(column)

    def centre(part, axis):
        return sum(box(part, axis)) / 2

    def size(part, axis):
        return box(part, axis)[1] - box(part, axis)[0]

    def sag(side):
        ends = [(a + b) / 2 for a, b in zip(at("brow_lateral_tip", side), at("brow_medial_tip", side), strict=True)]
        return math.dist(ends, at("brow_middle", side))

    def gap(a, b, side=0):
        return math.dist(at(a, side), at(b, side))

    def rise(a, b, side=0):
        return abs(at(a, side)[1] - at(b, side)[1])

    def span(name):
        return abs(at(name, 0)[0] - at(name, 1)[0])

    every_x = [float(p[0]) for p in xyz]
    return {
        "eyebrows": [
            both(lambda s: gap("brow_front_top", "brow_front_bottom", s)),
            both(lambda s: gap("brow_tail_top", "brow_tail_bottom", s)),
            both(lambda s: gap("brow_lateral_tip", "brow_medial_tip", s)),
            both(sag),
        ],
        "eyes": [
            span("eye_centre"),
            both(lambda s: rise("eye_top", "eye_bottom", s)),
            both(lambda s: gap("medial_canthus", "lateral_canthus", s)),
            both(lambda s: at("medial_canthus", s)[1]) - centre("eyes", 1),
            both(lambda s: at("lateral_canthus", s)[1]) - centre("eyes", 1),
        ],
        "nose": [
            at("nose_tip")[1] - centre("nose", 1),
            at("nose_tip")[2] - centre("nose", 2),
            size("nose", 1),
            size("nose", 0),
            span("nose_tip_side"),
            span("nose_bridge_side"),
        ],
        "upper_lip": [
            span("bow_peak"),
            rise("upper_lip_top", "upper_lip_bottom"),
            span("upper_lip_corner"),
            both(lambda s: rise("upper_lip_end_top", "upper_lip_end_bottom", s)),
        ],
        "lower_lip": [
            gap("lower_lip_top", "lower_lip_bottom"),
            math.dist(at("lower_lip_corner", 0), at("lower_lip_corner", 1)),
            both(lambda s: gap("lower_lip_end_top", "lower_lip_end_bottom", s)),
        ],
        "rest": [
            max(every_x) - min(every_x),
            span("jaw_angle"),
            at("glabella")[2],
            at("subnasale")[2],
            at("chin")[2],
            rise("glabella", "chin"),
            rise("glabella", "stomion"),
            rise("subnasale", "chin"),
        ],
    }


def test_vectorised_measures_equal_the_rules_written_out(face, points):
    batch = face.vertices + np.random.default_rng(1).normal(0, 0.4, (2, 3, *face.vertices.shape))
    fast = measure(batch, points)
    for i, j in np.ndindex(2, 3):
        slow = plain_measurements(batch[i, j], face.labels, points.points)
        for region in REGIONS:
            np.testing.assert_allclose(fast[region][i, j], slow[region], rtol=0, atol=1e-10)


def test_translation_changes_only_the_facial_depths_and_those_by_z(face, points):
    before, after = measure(face.vertices, points), measure(face.vertices + np.array([3.0, -5.0, 11.0]), points)
    for part in PARTS:
        np.testing.assert_allclose(after[part], before[part], atol=1e-10)
    depth = ["depth" in name for name in controller_names("rest")]
    np.testing.assert_allclose(after["rest"] - before["rest"], np.where(depth, 11.0, 0.0), atol=1e-10)


def test_every_measure_scales_with_the_face(face, points):
    before, after = measure(face.vertices, points), measure(1.25 * face.vertices, points)
    for region in REGIONS:
        np.testing.assert_allclose(after[region], 1.25 * before[region], atol=1e-10)


def test_mirroring_the_face_changes_no_measure(face, points):
    noisy = face.vertices + np.random.default_rng(4).normal(0, 0.3, face.vertices.shape)
    mirror = {tuple(p): i for i, p in enumerate(face.flat[:, :2].tolist())}
    partner = [mirror[(-x, y)] for x, y in face.flat[:, :2].tolist()]
    before = measure(noisy, points)
    after = measure(noisy[partner] * [-1.0, 1.0, 1.0], points)
    for region in REGIONS:
        np.testing.assert_allclose(after[region], before[region], atol=1e-9, err_msg=region)


def test_float32_faces_are_measured_in_float64(face, points):
    single = face.vertices.astype(np.float32)
    for region, values in measure(single, points).items():
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, measure(single.astype(np.float64), points)[region])


def test_every_point_of_a_part_lies_in_that_part_and_pairs_keep_their_side(face, points):
    for controller in CONTROLLERS:
        for name in controller.points:
            ids = points.points[name]
            if controller.region in PARTS:
                assert set(face.labels[ids].ravel()) == {LABEL_IDS[controller.region]}, name
            elif name != "stomion":
                assert set(face.labels[ids].ravel()) == {LABEL_IDS["rest"]}, name
            if len(ids) == 2:
                right, left = face.vertices[ids].mean(axis=1)
                assert right[0] < 0 < left[0], name


def test_points_are_found_on_a_translated_and_scaled_template_too(face, points):
    moved = MeasurementLandmarks.from_template(0.9 * face.vertices + [4.0, 9.0, 50.0], face.labels, face.landmarks68)
    for name in points.points:
        np.testing.assert_array_equal(moved.points[name], points.points[name], err_msg=name)


def test_points_do_not_depend_on_the_numbers_of_the_vertices(face, points):
    before = measure(face.vertices, points)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(face.vertices))
        xyz, landmarks = face.vertices[order], np.argsort(order)[face.landmarks68]
        after = measure(xyz, MeasurementLandmarks.from_template(xyz, face.labels[order], landmarks))
        for region in REGIONS:
            np.testing.assert_array_equal(after[region], before[region], err_msg=region)


def test_a_finer_mesh_of_the_same_face_measures_the_same(face, points):
    """New vertices halve every edge; a point moves to one of them where that fits the rule better, by half an edge."""
    edges = np.unique(np.sort(face.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    ends = face.labels[edges]
    labels = np.concatenate([face.labels, np.where(ends[:, 0] == ends[:, 1], ends[:, 0], LABEL_IDS["rest"])])
    xyz = np.concatenate([face.vertices, face.vertices[edges].mean(axis=1)])
    edge_mm = np.linalg.norm(np.diff(face.vertices[edges], axis=1), axis=2).mean()
    before = measurement_values(measure(face.vertices, points))
    after = measurement_values(measure(xyz, MeasurementLandmarks.from_template(xyz, labels, face.landmarks68)))
    moved = {name: abs(after[name] - before[name]) for name in before}
    assert max(moved.values()) < edge_mm, moved
    assert np.median(list(moved.values())) < 0.25 * edge_mm


def test_a_part_that_is_missing_names_the_controller(face):
    labels = np.where(face.labels == LABEL_IDS["nose"], LABEL_IDS["rest"], face.labels)
    with pytest.raises(ValueError, match=r"cannot resolve nose\.tip_height: no vertex is labelled nose \(4\)"):
        MeasurementLandmarks.from_template(face.vertices, labels, face.landmarks68)


def test_a_brow_on_one_side_only_names_the_controller_and_the_side(face):
    left_brow = (face.labels == LABEL_IDS["eyebrows"]) & (face.vertices[:, 0] > 0)
    labels = np.where(left_brow, LABEL_IDS["rest"], face.labels)
    with pytest.raises(ValueError, match=r"cannot resolve eyebrows\.front_thickness: .*subject's left"):
        MeasurementLandmarks.from_template(face.vertices, labels, face.landmarks68)


def test_a_landmark_far_from_its_part_names_the_controller_and_the_distance(face):
    landmarks = face.landmarks68.copy()
    landmarks[39] = landmarks[8]
    with pytest.raises(ValueError, match=r"cannot resolve eyes\..*: the part is \d+\.\d mm from landmark 39"):
        MeasurementLandmarks.from_template(face.vertices, face.labels, landmarks)


def test_a_part_one_vertex_thin_is_refused(face):
    lip = face.labels == LABEL_IDS["lower_lip"]
    thin = lip & (face.flat[:, 1] != -38)
    labels = np.where(thin, LABEL_IDS["rest"], face.labels)
    with pytest.raises(ValueError, match=r"cannot resolve lower_lip\.height: .* same vertex, the part is too thin"):
        MeasurementLandmarks.from_template(face.vertices, labels, face.landmarks68)


def test_wrong_templates_are_refused_in_one_line(face):
    v, labels, ids = face.vertices, face.labels, face.landmarks68
    broken = v.copy()
    broken[5, 1] = np.nan
    for arguments, message in [
        ((v[:, :2], labels, ids), r"template has shape .* expected \(V, 3\)"),
        ((broken, labels, ids), "not finite"),
        ((v, labels[:-1], ids), "one id per vertex"),
        ((v, np.where(labels == 1, 9, labels), ids), r"unknown ids \[9\]"),
        ((v, np.where(labels == 1, 0, labels), ids), r"unknown ids \[0\]"),
        ((v, labels, ids[:5]), r"expected \(68,\)"),
        ((v, labels, ids + len(v)), "landmarks68 runs from"),
        ((v * [-1, 1, 1], labels, ids), "mirrored landmarks"),
        ((v * [1, -1, 1], labels, ids), r"is \+y up"),
    ]:
        with pytest.raises(ValueError, match=message):
            MeasurementLandmarks.from_template(*arguments)


def test_wrong_vertices_are_refused(face, points):
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 4859, 3\)"):
        measure(face.vertices[:-1], points)
    for bad in (np.nan, np.inf):
        broken = face.vertices.copy()
        broken[points.points["chin"][0, 0]] = bad
        with pytest.raises(ValueError, match="vertices of rest have coordinates that are not finite"):
            measure(broken, points)


def test_values_by_name_are_for_one_face(face, points):
    values = measurement_values(measure(face.vertices, points))
    assert list(values) == [c.key for c in CONTROLLERS]
    with pytest.raises(ValueError, match="index one face first"):
        measurement_values(measure(face.vertices[None], points))

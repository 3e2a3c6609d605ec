import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from segmodel import LABEL_IDS, PartLayout, SeamBlender, seam_report
from segmodel.seams import dihedral_degrees

REST = LABEL_IDS["rest"]


@pytest.fixture(scope="module")
def blender(layout):
    return SeamBlender(layout, radius_mm=30.0)


@pytest.fixture(scope="module")
def pair(model, face):
    """Composed and rest vertices of two random faces, each with a part moved, the second so far that skin folds."""
    with torch.no_grad():
        composed, rest = model.compose(model.encode(face.sample(2, seed=5).vertices(range(2))))
    composed[0, model.layout.core("nose")] += torch.tensor([0.0, 2.0, 1.0])
    composed[1, model.layout.core("upper_lip")] += torch.tensor([0.0, 6.0, -2.0])
    return composed, rest


def definition(layout, vertices, rest, reference):
    """Stretch, mm, crease and flips of one face, each as its definition says, triangle by triangle."""
    is_rest = layout.labels == REST
    owners = defaultdict(list)
    for t in layout.faces.tolist():
        for edge in zip(t, (*t[1:], t[0]), strict=True):
            owners[frozenset(edge)].append((edge, t))

    def normal(shape, t):
        n = np.cross(shape[t[1]] - shape[t[0]], shape[t[2]] - shape[t[0]])
        return n / np.linalg.norm(n)

    def bend(shape, edge, s, t):
        along = (shape[edge[1]] - shape[edge[0]]) / math.dist(shape[edge[0]], shape[edge[1]])
        n, m = normal(shape, s), normal(shape, t)
        return math.degrees(math.atan2(np.cross(n, m) @ along, n @ m))

    stretch, mm, crease = [], [], []
    for pair, sides in owners.items():
        a, b = sorted(pair)
        if is_rest[a] != is_rest[b]:
            now, wanted = math.dist(vertices[a], vertices[b]), math.dist(rest[a], rest[b])
            stretch.append(abs(now / wanted - 1))
            mm.append(abs(now - wanted))
        if len(sides) == 2 and any(len(set(is_rest[t])) == 2 for _, t in sides):
            (edge, s), (_, t) = sides
            crease.append(abs(bend(vertices, edge, s, t) - bend(reference, edge, s, t)))
    covered = set(layout.vertices("rest").tolist())
    skin = [t for t in layout.faces.tolist() if covered >= set(t)]
    return sorted(stretch), sorted(mm), sorted(crease), sum(normal(vertices, t) @ normal(rest, t) < 0 for t in skin)


def test_every_measure_is_its_definition(blender, layout, face, pair):
    composed, rest = pair
    blended = blender(composed, rest)
    reference = face.mean.astype(np.float64)
    report = seam_report(layout, blender.area, composed, blended, rest)
    for measures, shapes in ((report.before, composed), (report.after, blended)):
        for row, shape in enumerate(shapes.double().numpy()):
            stretch, mm, crease, flipped = definition(layout, shape, rest[row].double().numpy(), reference)
            np.testing.assert_allclose(measures.stretch[row].sort().values, stretch, atol=1e-5)
            np.testing.assert_allclose(measures.stretch_mm[row].sort().values, mm, atol=1e-4)
            np.testing.assert_allclose(measures.crease_deg[row].sort().values, crease, atol=0.01)
            assert measures.flipped[row] == flipped
    assert report.before.flipped[1] > 0


def test_blending_takes_stretch_and_creases_away_and_moves_nothing_else(blender, layout, pair):
    composed, rest = pair
    summary = seam_report(layout, blender.area, composed, blender(composed, rest), rest).summary()
    assert summary["stretch_mean_after"] < 0.3 * summary["stretch_mean_before"]
    assert summary["crease_deg_mean_after"] < 0.6 * summary["crease_deg_mean_before"]
    assert summary["flipped_after"] < summary["flipped_before"]
    assert summary["moved_in_parts_mm"] == summary["moved_outside_mm"] == 0.0


def test_parts_that_fit_have_no_seam(blender, layout, face):
    whole = torch.from_numpy(face.mean)[None]
    summary = seam_report(layout, blender.area, whole, whole, whole).summary()
    assert all(value == 0.0 for value in summary.values())


def test_natural_creases_are_those_of_the_reference(blender, layout, face):
    bumpy = torch.from_numpy(face.mean)[None].clone()
    bumpy[..., 2] += torch.from_numpy(np.sin(np.arange(layout.n_vertices)))
    own = seam_report(layout, blender.area, bumpy, bumpy, bumpy, bumpy)
    template = seam_report(layout, blender.area, bumpy, bumpy, bumpy)
    assert own.before.crease_deg.max() == 0.0
    assert template.before.crease_deg.mean() > 10.0


def test_what_blending_must_not_move_is_found_where_it_is(blender, layout, pair):
    composed, rest = pair
    blended = blender(composed, rest)
    blended[0, layout.core("nose")[0], 1] += 2.0
    blended[1, blender.area.vertex_ids[blender.area.handles[-1]], 0] += 3.0
    report = seam_report(layout, blender.area, composed, blended, rest)
    assert report.moved_in_parts_mm.tolist() == pytest.approx([2.0, 0.0], abs=1e-5)
    assert report.moved_outside_mm.tolist() == pytest.approx([0.0, 3.0], abs=1e-5)


def test_dihedral_is_positive_at_a_ridge_and_turns_past_a_right_angle():
    """Two triangles over the edge from (0, 0, 0) to (0, 1, 0), the right one turned down by the angle."""
    angles = torch.deg2rad(torch.tensor([0.0, 30.0, -30.0, 120.0]))
    fixed = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.5, 0.0]]).expand(4, -1, -1)
    turned = torch.stack([angles.cos(), torch.full((4,), 0.5), -angles.sin()], 1)[:, None]
    measured = dihedral_degrees(torch.cat([fixed, turned], 1), np.array([[0, 1, 2, 3]]))
    np.testing.assert_allclose(measured[:, 0], [0.0, 30.0, -30.0, 120.0], atol=1e-4)


def test_wrong_shapes_and_a_face_without_seams_are_named(blender, layout, pair):
    composed, rest = pair
    with pytest.raises(ValueError, match=r"rest has shape \(1, \d+, 3\): give \(2, "):
        seam_report(layout, blender.area, composed, composed, rest[:1])
    with pytest.raises(ValueError, match=r"reference has shape \(2, 5, 3\)"):
        seam_report(layout, blender.area, composed, composed, rest, rest[:, :5])
    apart = PartLayout(layout.labels, layout.part_faces("nose"), layout.template)
    with pytest.raises(ValueError, match="no triangle joins a part with the rest"):
        seam_report(apart, blender.area, composed, composed, rest)

import numpy as np
import pytest

from dataset_builder.camera import CropCamera, apply_pose, rotation_matrix
from dataset_builder.face_model import FaceModel
from dataset_builder.label_cleaner import LabelCleaner
from dataset_builder.label_transfer import label_agreement, transfer_labels
from dataset_builder.landmark_fit import FaceEstimate
from dataset_builder.parts import LABEL_IDS, PARTS
from dataset_builder.subdivision import mesh_edges

pytest.importorskip("open3d")


def part_at(x, y):
    """Label ids of a flat cartoon face at points in mm: exact truth for vertices (2.5 mm apart) and for masks."""
    label = np.ones(np.shape(x), np.uint8)
    side = np.abs(x)
    label[(side > 16.25) & (side < 46.25) & (y > 38.75) & (y < 48.75)] = 2
    label[((side - 30) / 12) ** 2 + ((y - 25) / 7) ** 2 < 1] = 3
    label[(side < 8 + (23.75 - y) / 6) & (y > -13.75) & (y < 23.75)] = 4
    label[(side < 21.25) & (y > -36.25) & (y < -28.75)] = 5
    label[(side < 21.25) & (y > -46.25) & (y < -36.25)] = 6
    return label


def flat_face(cells=56, mirror=False):
    grid = np.linspace(-70, 70, cells + 1)
    x, y = (values.ravel() for values in np.meshgrid(grid, grid))
    ids = np.arange(len(x)).reshape(cells + 1, -1)
    a, b, c, d = ids[:-1, :-1].ravel(), ids[:-1, 1:].ravel(), ids[1:, 1:].ravel(), ids[1:, :-1].ravel()
    left = (x[a] >= 0)[:, None]
    faces = np.where(left, np.stack([a, b, c, a, c, d], -1), np.stack([a, b, d, b, c, d], -1))
    mean = np.stack([x, y, 0 * x], -1).astype(np.float32)
    return FaceModel(
        name="flat",
        licence="none",
        mean=mean,
        id_basis=np.zeros((len(x), 3, 1), np.float32),
        ex_basis=np.zeros((len(x), 3, 0), np.float32),
        faces=faces.reshape(-1, 3).astype(np.int64),
        landmarks68=np.arange(68),
        mirror=ids[:, ::-1].ravel().astype(np.int64) if mirror else None,
    )


def masks_of(angles, translation, size=224):
    """The exact mask of the flat face in each pose: pixel rays meet the face's plane."""
    camera = CropCamera.of_size(size)
    column, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    ray = np.stack(
        [(column - camera.centre) / camera.focal, (camera.centre - row) / camera.focal, -np.ones_like(row)], -1
    )
    masks = []
    for turn, shift in zip(rotation_matrix(angles), translation, strict=True):
        origin = (np.array([0, 0, camera.distance]) - shift) @ turn
        direction = ray @ turn
        hit = origin + direction * (-origin[2] / direction[..., 2])[..., None]
        label = part_at(hit[..., 0], hit[..., 1])
        label[np.abs(hit[..., :2]).max(-1) > 70] = 0
        masks.append(label)
    return np.array(masks)


def estimate_of(angles, translation):
    n = len(angles)
    return FaceEstimate(
        np.zeros((n, 1), np.float32),
        np.zeros((n, 0), np.float32),
        angles.astype(np.float32),
        translation.astype(np.float32),
        np.zeros((n, 68), np.float32),
    )


@pytest.fixture(scope="module")
def poses():
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (8, 3)), rng.normal(0, 3, (8, 3))


def truth_of(model):
    return part_at(model.mean[:, 0], model.mean[:, 1]).astype(np.int64)


def test_exact_masks_give_the_true_labels_back(poses):
    model = flat_face()
    found = transfer_labels(model, masks_of(*poses), estimate_of(*poses))
    agreement = label_agreement(found.labels, truth_of(model))
    assert list(agreement) == list(PARTS)
    assert min(agreement.values()) > 0.9
    assert found.ballots.shape == (model.n_vertices, 7)
    assert found.ballots.sum(1).max() == pytest.approx(8, abs=1e-4)
    assert found.confidence[found.labels == 4].mean() > 0.95
    assert found.counts["nose"] == (found.labels == 4).sum()


def test_the_mask_size_does_not_matter(poses):
    model = flat_face()
    small = transfer_labels(model, masks_of(*poses), estimate_of(*poses))
    large = transfer_labels(model, masks_of(*poses, size=448), estimate_of(*poses))
    assert min(label_agreement(small.labels, large.labels).values()) > 0.93
    assert large.target_area["nose"] == pytest.approx(small.target_area["nose"], rel=0.01)


@pytest.mark.parametrize("known", [True, False])
def test_labels_are_mirrored_with_and_without_a_known_map(poses, known):
    model = flat_face(mirror=known)
    found = transfer_labels(model, masks_of(*poses), estimate_of(*poses))
    mirror = flat_face(mirror=True).mirror
    np.testing.assert_array_equal(found.labels, found.labels[mirror])
    np.testing.assert_allclose(found.ballots, found.ballots[mirror], atol=1e-5)


def test_calibration_gives_blurred_parts_their_area_back():
    rng = np.random.default_rng(2)
    angles, translation = rng.normal(0, 0.05, (30, 3)), rng.normal(0, 2, (30, 3))
    blurred = estimate_of(angles, translation + rng.normal(0, 4, (30, 3)) * [1, 1, 0])
    model, masks = flat_face(), masks_of(angles, translation)
    plain = transfer_labels(model, masks, blurred, calibrate=False)
    calibrated = transfer_labels(model, masks, blurred)
    error = {
        name: max(abs(np.log(found.area[part] / found.target_area[part])) for part in PARTS)
        for name, found in (("plain", plain), ("calibrated", calibrated))
    }
    assert plain.area["eyebrows"] < 0.9 * plain.target_area["eyebrows"]
    assert error["calibrated"] < 0.5 * error["plain"]
    assert calibrated.factors["eyebrows"] > 1


def test_projected_areas_agree_with_the_masks(poses):
    model = flat_face()
    found = transfer_labels(model, masks_of(*poses), estimate_of(*poses), calibrate=False)
    for part in PARTS:
        assert found.area[part] == pytest.approx(found.target_area[part], rel=0.06)


def test_ignored_pixels_have_no_vote(poses):
    model, masks = flat_face(), masks_of(*poses)
    covered = masks == LABEL_IDS["eyebrows"]
    spoiled = np.where(covered, 0, masks).astype(np.uint8)
    spoiled[0] = masks[0]
    ignore = covered.copy()
    ignore[0] = False
    found = transfer_labels(model, spoiled, estimate_of(*poses), ignore=ignore, calibrate=False)
    assert label_agreement(found.labels, truth_of(model))["eyebrows"] > 0.75


@pytest.mark.parametrize("borders", ["between", "edges"])
def test_restricted_parts_stay_within_their_vertices(poses, borders):
    model = flat_face()
    allowed = np.flatnonzero(model.mean[:, 1] > 25)
    found = transfer_labels(model, masks_of(*poses), estimate_of(*poses), restrict={"eyes": allowed}, borders=borders)
    eyes = np.flatnonzero(found.labels == LABEL_IDS["eyes"])
    assert len(eyes)
    assert np.isin(eyes, allowed).all()


def test_vertices_nobody_sees_follow_their_nearest_seen_neighbour(poses):
    model, masks = flat_face(), masks_of(*poses)
    hidden = np.hypot(model.mean[:, 0], model.mean[:, 1] - 5) < 4
    ignore = np.zeros(masks.shape, bool)
    for number in range(len(masks)):
        pixels = CropCamera().project(apply_pose(model.mean[hidden], poses[0][number], poses[1][number]))
        low, high = np.floor(pixels.min(0)).astype(int) - 1, np.ceil(pixels.max(0)).astype(int) + 1
        ignore[number, low[1] : high[1], low[0] : high[0]] = True
    found = transfer_labels(model, masks, estimate_of(*poses), ignore=ignore)
    assert (found.labels[hidden] == LABEL_IDS["nose"]).all()
    assert not found.ballots[hidden].any()
    assert not found.confidence[hidden].any()


def test_cleaner_drops_islands_fills_holes_and_keeps_pairs():
    model = flat_face()
    truth = truth_of(model)
    noisy = truth.copy()
    x, y = model.mean[:, 0], model.mean[:, 1]
    noisy[(np.abs(x + 60) < 6) & (np.abs(y + 60) < 6)] = LABEL_IDS["nose"]
    noisy[(np.abs(x) < 4) & (np.abs(y - 5) < 4)] = LABEL_IDS["rest"]
    cleaned = LabelCleaner(mesh_edges(model.faces), model.n_vertices, passes=0)(noisy)
    np.testing.assert_array_equal(cleaned, truth)


def test_cleaner_outvotes_single_vertices_only():
    model = flat_face()
    truth = truth_of(model)
    noisy = truth.copy()
    inner = np.flatnonzero((truth == LABEL_IDS["nose"]) & (np.abs(model.mean[:, 0]) < 5))
    noisy[inner[10]] = LABEL_IDS["eyes"]
    assert LabelCleaner(mesh_edges(model.faces), model.n_vertices)(noisy)[inner[10]] == LABEL_IDS["nose"]


def test_agreement_is_intersection_over_union():
    first, second = np.array([2, 2, 3, 1, 4]), np.array([2, 1, 3, 3, 1])
    agreement = label_agreement(first, second)
    assert agreement == {"eyebrows": 0.5, "eyes": 0.5, "nose": 0.0, "upper_lip": 1.0, "lower_lip": 1.0}
    with pytest.raises(ValueError, match="cannot be compared"):
        label_agreement(first, second[:3])


def test_agreement_counts_vertices_by_their_weights():
    first, second = np.array([2, 2, 4]), np.array([2, 1, 4])
    assert label_agreement(first, second, np.array([3.0, 1.0, 1.0]))["eyebrows"] == 0.75
    assert label_agreement(first, second, np.array([True, False, True]))["eyebrows"] == 1.0
    with pytest.raises(ValueError, match=r"weights of shape \(2,\) do not fit"):
        label_agreement(first, second, np.ones(2))


def test_borders_on_edges_put_the_corners_of_a_parts_triangles_into_it(poses):
    model = flat_face()
    found = transfer_labels(model, masks_of(*poses), estimate_of(*poses), borders="edges")
    centroid = model.mean[model.faces].mean(1)
    inner = part_at(centroid[:, 0], centroid[:, 1])
    for part in ("eyebrows", "nose"):
        true = np.unique(model.faces[inner == LABEL_IDS[part]])
        own = np.flatnonzero(found.labels == LABEL_IDS[part])
        assert len(np.intersect1d(true, own)) > 0.93 * len(np.union1d(true, own))  # smoothing rounds the corners
        assert found.area[part] == pytest.approx(found.target_area[part], rel=0.03)
    assert found.counts["nose"] > transfer_labels(model, masks_of(*poses), estimate_of(*poses)).counts["nose"]
    assert found.ballots.shape == (model.n_vertices, 7)
    assert found.confidence[found.labels == LABEL_IDS["nose"]].mean() > 0.9


def test_bad_input_is_named(poses):
    model, masks, estimate = flat_face(cells=10), masks_of(*poses), estimate_of(*poses)
    with pytest.raises(ValueError, match=r"masks must be \(N, S, S\) label ids"):
        transfer_labels(model, masks[:, :100], estimate)
    with pytest.raises(ValueError, match="masks hold label id 18"):
        transfer_labels(model, np.full_like(masks, 18), estimate)
    with pytest.raises(ValueError, match="3 masks but 8 estimated faces"):
        transfer_labels(model, masks[:3], estimate)
    with pytest.raises(ValueError, match="ignore has shape"):
        transfer_labels(model, masks, estimate, ignore=np.zeros((8, 2, 2), bool))
    with pytest.raises(ValueError, match="restrict names 'ears'"):
        transfer_labels(model, masks, estimate, restrict={"ears": np.arange(3)})
    with pytest.raises(ValueError, match=r"restrict\['eyes'\] holds vertex 999"):
        transfer_labels(model, masks, estimate, restrict={"eyes": np.array([999])})
    with pytest.raises(ValueError, match="borders is 'outline'"):
        transfer_labels(model, masks, estimate, borders="outline")
    with pytest.raises(ValueError, match="no vertex is seen in enough photos"):
        transfer_labels(model, masks, estimate, ignore=np.ones(masks.shape, bool))
    with pytest.raises(ValueError, match="no mask holds eyebrows"):
        transfer_labels(model, np.where(masks == 2, 1, masks).astype(np.uint8), estimate)

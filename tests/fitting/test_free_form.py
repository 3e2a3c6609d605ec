import numpy as np
import pytest
import torch

from fitting import LABEL_IDS, PARTS, Camera, register_free_form, render_labels
from fitting.free_form import _Smoother

VIEW = Camera.deep3d(160)
N = 2


def targets(face, n=N):
    """Masks of n faces whose parts are bent: no offset of a part gives them."""
    x, y = face.vertices[:, 0], face.vertices[:, 1]
    zero = torch.zeros_like(x)
    bend = [
        torch.stack([zero, 2.5 * torch.sin(x / 9), zero], -1),
        torch.stack([2.0 * torch.cos(y / 7), zero, zero], -1),
    ]
    return render_labels(torch.stack([face.vertices + shift for shift in bend[:n]]), face.labels, VIEW, face.faces)


def register(face, masks, **options):
    options = {"faces": face.faces, "labels": face.labels, "iterations": 40, "smoothing": 2.0, "rings": 3} | options
    return register_free_form(face.vertices.expand(len(masks), -1, -1), masks, VIEW, **options)


@pytest.fixture(scope="module")
def registered(face):
    return register(face, targets(face))


def test_bent_parts_are_laid_on_their_masks(registered):
    assert (registered.overlap_before.mean_of_parts() < 0.91).all()
    assert (registered.overlap_after.mean_of_parts() > 0.94).all()
    assert (registered.overlap_after.iou() > registered.overlap_before.iou()).all()
    assert registered.loss.shape == (41, N)
    assert (registered.loss.min(0) < registered.loss[0] - 0.03).all()  # the ramp leaves a floor of about 1.4


def test_triangles_keep_their_order(face, registered):
    assert (registered.flipped == 0).all()
    rough = register(face, targets(face), smoothing=0.0)
    assert (rough.flipped > 0).all(), "without smoothing single vertices cross their neighbours"


def test_motion_stays_in_the_image_plane_near_the_parts_and_bounded(face, registered):
    moved = registered.displacement
    assert moved.shape == (N, *face.vertices.shape)
    assert torch.equal(moved[..., 2], torch.zeros_like(moved[..., 2]))
    distance = torch.cdist(face.vertices, face.vertices[face.labels >= 2]).min(1).values
    far = distance > 3 * 8.2  # three times the longest edge
    assert far.sum() > 100
    assert float(moved[:, far].abs().max()) == 0
    assert float(moved[:, ~far].abs().max()) > 1
    tight = register(face, targets(face), limit_mm=0.5).displacement
    assert 0.3 < float(tight.abs().max()) <= 0.5


def test_a_face_on_its_masks_does_not_move(face):
    masks = render_labels(face.vertices[None], face.labels, VIEW, face.faces)
    found = register(face, masks, prior=1e-2)
    assert float(found.displacement.abs().max()) < 0.6, "less than a pixel"
    assert found.overlap_after.mean_of_parts()[0] > 0.95


def test_photos_do_not_influence_each_other(face, registered):
    alone = register(face, targets(face, 1))
    assert torch.allclose(alone.displacement[0], registered.displacement[0], atol=1e-5)


def test_the_motion_is_repeatable(face, registered):
    assert torch.equal(register(face, targets(face)).displacement, registered.displacement)


def test_ignored_pixels_do_not_pull(face):
    masks = targets(face, 1)
    brow = LABEL_IDS["eyebrows"]
    shown = (masks == brow) | (render_labels(face.vertices[None], face.labels, VIEW, face.faces) == brow)
    near = torch.nn.functional.max_pool2d(shown[None].float(), 21, 1, 10)[0] > 0
    seen, hidden = (register(face, masks, ignore=ignore, prior=1e-2).displacement[0] for ignore in (None, near))
    own = face.labels == brow
    assert float(hidden[own].norm(dim=-1).mean()) < 0.4 * float(seen[own].norm(dim=-1).mean())
    nose = face.labels == LABEL_IDS["nose"]
    assert float(hidden[nose].norm(dim=-1).mean()) > 0.8 * float(seen[nose].norm(dim=-1).mean())


def test_the_smoother_inverts_the_screened_laplacian(face):
    smoother = _Smoother(face.faces.numpy(), face.labels.numpy(), 3.0, 2)
    ids = smoother.vertices
    dense = np.zeros((len(face.labels),) * 2)
    for a, b, c in face.faces.tolist():
        for i, j in ((a, b), (b, c), (c, a)):
            dense[i, j] = dense[j, i] = -1
    np.fill_diagonal(dense, -dense.sum(1))
    system = np.eye(len(ids)) + 3.0 * dense[np.ix_(ids, ids)]
    u = torch.randn(2, len(ids), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slow = np.einsum("ij,bjc->bic", np.linalg.inv(system), u.numpy())
    np.testing.assert_allclose(smoother(u).numpy(), slow, atol=1e-12)
    assert float(smoother(torch.ones(1, len(ids), 1)).max()) <= 1 + 1e-6
    assert float(smoother(torch.eye(len(ids))[None]).min()) >= -1e-9, "a bound on u bounds the motion"


def test_the_smoother_has_the_right_gradient(face):
    smoother = _Smoother(face.faces.numpy(), face.labels.numpy(), 3.0, 0)
    u = torch.randn(1, len(smoother.vertices), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(smoother, u.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("name", ["smoothing", "rings", "limit_mm"])
def test_a_negative_setting_is_refused(face, name):
    with pytest.raises(ValueError, match=f"{name} is -1; it must be >= 0"):
        register(face, targets(face), **{name: -1})


def test_bad_input_is_refused(face):
    masks = targets(face)
    with pytest.raises(ValueError, match=r"vertices have shape \(2, 2204, 3\); expected \(B, 2205, 3\)"):
        register_free_form(face.vertices.expand(N, -1, -1)[:, 1:], masks, VIEW, faces=face.faces, labels=face.labels)
    with pytest.raises(ValueError, match="no vertex is labelled as a part"):
        register(face, masks, labels=torch.ones_like(face.labels))
    with pytest.raises(ValueError, match="2 target masks but the variables hold 1 photos"):
        register_free_form(face.vertices[None], masks, VIEW, faces=face.faces, labels=face.labels)
    broken = torch.stack([face.vertices, face.vertices * torch.nan])
    with pytest.raises(ValueError, match=r"vertices are NaN or infinite, photos \[1\]"):
        register_free_form(broken, masks, VIEW, faces=face.faces, labels=face.labels)


def test_a_photo_without_parts_leaves_the_face_where_it_is(face):
    found = register(face, np.zeros((1, VIEW.height, VIEW.width), np.uint8))
    assert torch.equal(found.displacement, torch.zeros_like(found.displacement))
    assert len(PARTS) == found.overlap_after.iou().shape[1]
    assert np.isnan(found.overlap_after.mean_of_parts()).all()

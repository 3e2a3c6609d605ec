"""Files of the shapes and names that configs/paper.yaml needs, made up: BFM's front crop, weights, photographs, masks.

Nothing in them comes from the originals but the layout.
"""

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from scipy.sparse import coo_matrix, vstack
from scipy.sparse import eye as identity_matrix

from dataset_builder import LABEL_IDS, load_face_model, render_photo, sample_appearance
from dataset_builder.alignment import CANONICAL_FIVE_POINTS_DM
from dataset_builder.deep3dmm import CoefficientNetwork
from dataset_builder.facenet import InceptionResnetV1
from dataset_builder.procedural.studio import Studio

BFM_VERTICES, BFM_TRIANGLES = 35_709, 70_789
IDENTITIES, EXPRESSIONS, COLOURS = 80, 64, 80
SIDE = 256
MM_PER_DM = 100


def as_bfm(n_vertices=BFM_VERTICES, n_triangles=BFM_TRIANGLES, source="synthetic-35k"):
    """The built-in face with vertices put in until the counts are these: mean and modes in mm, triangles, landmarks.

    A vertex on a boundary edge adds one triangle, one inside a triangle adds two.
    """
    face = load_face_model(source)
    added = n_vertices - face.n_vertices
    inside = n_triangles - len(face.faces) - added
    on_boundary = added - inside
    assert inside >= 0 <= on_boundary
    triangles = face.faces
    sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], -1)
    _, place, count = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
    once = count[place.ravel()].reshape(-1, 3) == 1
    at_boundary = np.flatnonzero(once.any(1))[:on_boundary]
    whole = np.flatnonzero(~once.any(1))[:inside]
    kept = np.setdiff1d(np.arange(len(triangles)), [*at_boundary, *whole])

    new, rows, parents = [triangles[kept]], [], []
    for k, t in enumerate(at_boundary):
        first = int(np.argmax(once[t]))
        a, b, c = np.roll(triangles[t], -first)
        m = face.n_vertices + k
        new.append([[a, m, c], [m, b, c]])
        parents.append([a, b])
    for k, t in enumerate(whole, len(at_boundary)):
        a, b, c = triangles[t]
        m = face.n_vertices + k
        new.append([[a, b, m], [b, c, m], [c, a, m]])
        parents.append([a, b, c])
    rows = np.repeat(np.arange(added), [len(p) for p in parents])
    shares = np.concatenate([np.full(len(p), 1 / len(p)) for p in parents])
    means = coo_matrix((shares, (rows, np.concatenate(parents))), (added, face.n_vertices))
    spread = vstack([identity_matrix(face.n_vertices), means]).tocsr()

    def onto(values):
        return (spread @ values.reshape(face.n_vertices, -1)).reshape(n_vertices, *values.shape[1:])

    return onto(face.mean), onto(face.id_basis), onto(face.ex_basis), np.concatenate(new), face.landmarks68


def write_bfm(folder, **counts):
    """``BFM_model_front.mat``: decimetres, colours to 255, ids from 1."""
    mean, id_basis, ex_basis, triangles, landmarks = as_bfm(**counts)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def filled(basis, count, size):
        """``count`` modes: those there are, and waves of ``size`` over the face."""
        missing = count - basis.shape[-1]
        waves = np.sin(mean @ rng.normal(0, 0.03, (3, missing)) + rng.uniform(0, 6, missing))
        extra = waves[:, None] * rng.normal(0, size, (3, missing))
        return np.concatenate([basis, extra], -1).reshape(3 * len(mean), count).astype(np.float32)

    content = {
        "meanshape": mean.reshape(1, -1) / MM_PER_DM,
        "idBase": filled(id_basis, IDENTITIES, 0.3) / MM_PER_DM,
        "exBase": filled(ex_basis * 0.2, EXPRESSIONS, 0.1) / MM_PER_DM,
        "meantex": np.full((1, mean.size), 160, np.float32),
        "texBase": filled(np.zeros((len(mean), 3, 0)), COLOURS, 2.0),
        "tri": triangles + 1,
        "keypoints": landmarks[None] + 1,
    }
    savemat(folder / "BFM_model_front.mat", content)


def write_deep3dmm(path):
    """A checkpoint laid out as the official one, whose network sees nearly the mean face everywhere."""
    torch.manual_seed(0)
    network = CoefficientNetwork().eval()
    with torch.no_grad():
        size = network.backbone(torch.rand(1, 3, 224, 224)).norm()
        for head, spread in zip(network.final_layers, (0.3, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01), strict=True):
            head.weight.normal_(0, float(spread / size))
            head.bias.zero_()
        across, along = _to_the_middle()
        network.final_layers[5].bias.copy_(torch.tensor(across))
        network.final_layers[6].bias.copy_(torch.tensor(along))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"net_recon": network.state_dict(), "opt_00": {"state": {}}, "sched_00": {"last_epoch": 20}}, path)


def _to_the_middle():
    """Translation in dm, across and along the view, from the mean face to where crops have theirs."""
    mean, *_, landmarks = as_bfm()
    marks = (mean - mean.mean(0))[landmarks] / MM_PER_DM
    five = np.stack([marks[[36, 39]].mean(0), marks[[42, 45]].mean(0), marks[30], marks[48], marks[54]])
    x, y, z = (CANONICAL_FIVE_POINTS_DM - five).mean(0)
    return [x, y], [z]


def write_facenet(path):
    """FaceNet's state dictionary with the classifier, as facenet-pytorch publishes it."""
    torch.manual_seed(0)
    classifier = {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    torch.save(InceptionResnetV1().state_dict() | classifier, path)


def make_photos(seeds):
    """Frontal photographs of random faces."""
    face = load_face_model("synthetic")
    studio, nothing = Studio.of(face), np.zeros(face.n_expression)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        identity, angles = rng.normal(0, 0.6, face.n_identity), rng.normal(0, 0.03, 3)
        yield render_photo(studio, identity, nothing, angles, np.zeros(3), sample_appearance(seed), SIDE)


def write_celebamask(home, count):
    """``CelebA-HQ-img/0.jpg`` and ``CelebAMask-HQ-mask-anno/0/00000_nose.png``, black and white, one file per class."""
    images, masks = home / "CelebA-HQ-img", home / "CelebAMask-HQ-mask-anno" / "0"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for i, photo in enumerate(make_photos(range(count))):
        Image.fromarray(photo.image).save(images / f"{i}.jpg", quality=95)
        for name, pixels in _classes(photo.mask).items():
            Image.fromarray(np.uint8(255) * pixels).convert("RGB").save(masks / f"{i:05d}_{name}.png")


def _classes(mask):
    """Pixels of each class of CelebAMask-HQ; l_ and r_ are the subject's, who faces us."""
    on = {name: mask == label for name, label in LABEL_IDS.items()}
    at_right = np.arange(SIDE) > np.nonzero(on["nose"])[1].mean()
    return {
        "skin": mask > 0,
        "nose": on["nose"],
        "l_eye": on["eyes"] & at_right,
        "r_eye": on["eyes"] & ~at_right,
        "l_brow": on["eyebrows"] & at_right,
        "r_brow": on["eyebrows"] & ~at_right,
        "u_lip": on["upper_lip"],
        "l_lip": on["lower_lip"],
    }


def write_ffhq(home, count):
    """``00000/00000.png``, ``01000/01000.png``: a thousand numbers to a subfolder."""
    for i, photo in enumerate(make_photos(range(100, 100 + count))):
        path = home / f"{i * 1000:05d}" / f"{i * 1000:05d}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(photo.image).save(path)
    (home / "LICENSE.txt").write_text("no photograph")

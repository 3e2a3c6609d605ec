"""Other people's programs open our GLB: the Khronos validator, Blender, three.js in Chromium. Each test needs its own.

NEO3DF_NODE_MODULES: a ``node_modules`` folder with gltf-validator and three. NEO3DF_BPY_PYTHON: a Python with bpy.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from editing import FaceEditor, FaceState, control_morphs, export_glb, expression_morphs

TOOLS = Path(__file__).parents[2] / "docs" / "opens_elsewhere"
POSES = [
    {},
    {"id_nose_width": 1.0},
    {"id_nose_width": -1.0},
    {"id_rest_facial_height": 1.0, "id_eyes_eye_height": -1.0},
    {"eyeBlinkLeft": 1.0},
    {"jawOpen": 1.0, "eyeBlinkLeft": 0.5, "id_nose_width": 3.0},
]


@pytest.fixture(scope="module")
def programs():
    spec = importlib.util.spec_from_file_location("opens_elsewhere_programs", TOOLS / "programs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["opens_elsewhere_programs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def node_modules():
    if not os.environ.get("NEO3DF_NODE_MODULES"):
        pytest.skip("NEO3DF_NODE_MODULES names no node_modules folder")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    return Path(os.environ["NEO3DF_NODE_MODULES"])


def has(node_modules, name):
    if not (node_modules / name).is_dir():
        pytest.skip(f"{node_modules} has no {name}")


@pytest.fixture
def targets(face, bent_decoder, controllers, points):
    """Thirty controls and two made-up expressions, one local, one everywhere."""
    editor = FaceEditor(FaceState.create(controllers.base_latents()), bent_decoder, controllers, points)
    basis = np.zeros((len(face.vertices), 3, 2), np.float32)
    basis[:, 1, 0] = -8 * np.exp(-(((face.flat - [30, 30, 0]) / 6) ** 2).sum(axis=1))
    basis[:, 1, 1] = -20 / (1 + np.exp((face.flat[:, 1] + 34) / 3))
    expressions = expression_morphs(basis, ("eyeBlink_L", "jawOpen"), [[0, 1], [0, 1]])
    return editor.vertices(), control_morphs(editor).deltas | expressions


@pytest.fixture
def glb(face, targets, tmp_path):
    return export_glb(tmp_path / "face.glb", targets[0], face.faces, labels=face.labels, morph_targets=targets[1])


def posed(targets, pose):
    """What we say the pose looks like, metres."""
    vertices, deltas = targets
    return (vertices + sum((w * deltas[name].astype(float) for name, w in pose.items()), np.zeros(3))) / 1000


def test_the_khronos_validator_finds_nothing(face, targets, glb, programs, node_modules, tmp_path):
    has(node_modules, "gltf-validator")
    uv = (face.flat[:, :2] + [72, 78]) / [144, 164]
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    colours = np.full(face.vertices.shape, 200, np.uint8)
    paths = [
        glb,
        export_glb(tmp_path / "t.glb", *targets[:1], face.faces, uv=uv, texture=texture, morph_targets=targets[1]),
        export_glb(tmp_path / "c.glb", face.vertices, face.faces, vertex_colours=colours),
        export_glb(tmp_path / "s.glb", face.vertices, face.faces, morph_targets={"still": 0 * face.vertices}),
    ]
    for path, report in zip(paths, programs.validator_reports(paths, node_modules), strict=True):
        assert report["issues"]["messages"] == [], path.name
        assert report["info"]["totalVertexCount"] == len(face.vertices)


def test_the_validator_does_find_faults(glb, programs, node_modules):
    has(node_modules, "gltf-validator")
    content = glb.read_bytes()
    assert content.count(b'"SCALAR"') == 1
    glb.write_bytes(content.replace(b'"SCALAR"', b'"VEC3"  '))
    (report,) = programs.validator_reports([glb], node_modules)
    assert report["issues"]["numErrors"] > 0


def test_blender_has_every_shape_key_and_our_vertices(targets, glb, programs, tmp_path):
    if not os.environ.get("NEO3DF_BPY_PYTHON"):
        pytest.skip("NEO3DF_BPY_PYTHON names no Python with bpy")
    opened = programs.open_in_blender(glb, POSES, Path(os.environ["NEO3DF_BPY_PYTHON"]), tmp_path / "out")
    assert opened.names == list(targets[1])
    for pose, vertices in zip(POSES, opened.vertices, strict=True):
        np.testing.assert_allclose(vertices, posed(targets, pose), rtol=0, atol=1e-5, err_msg=str(pose))


def test_three_js_has_every_morph_name_and_our_vertices(targets, glb, programs, node_modules, tmp_path):
    has(node_modules, "three")
    pytest.importorskip("playwright", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    picture = tmp_path / "three.png"
    opened = programs.open_in_three(glb, POSES, node_modules, Path(chromium), picture)
    assert opened.names == list(targets[1])
    for pose, vertices in zip(POSES, opened.vertices, strict=True):
        np.testing.assert_allclose(vertices, posed(targets, pose), rtol=0, atol=1e-5, err_msg=str(pose))
    image = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
    drawn = (np.asarray(image) < 250).any(axis=-1).mean()
    assert 0.1 < drawn < 0.8, "a face on white"


def test_a_program_that_fails_says_so(programs, tmp_path):
    (tmp_path / "no.glb").write_bytes(b"no glb")
    with pytest.raises(RuntimeError, match="blender_shape_keys"):
        programs.open_in_blender(tmp_path / "no.glb", POSES, Path(sys.executable), tmp_path / "out")

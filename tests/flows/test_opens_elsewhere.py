"""The Khronos validator on real faces: the built-in one with a run's controls, ICT's with its expressions."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dataset_builder import load_face_model
from editing import export_glb, expression_morphs

TOOL = Path(__file__).parents[2] / "docs" / "opens_elsewhere" / "gltf_validate.mjs"
ARKIT = {"eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "mouthSmileLeft", "mouthFunnel", "noseSneerRight"}


@pytest.fixture(scope="module")
def node():
    modules = os.environ.get("NEO3DF_NODE_MODULES")
    if not modules or not (Path(modules) / "gltf-validator").is_dir():
        pytest.skip("NEO3DF_NODE_MODULES names no node_modules folder with gltf-validator")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    return ["node", str(TOOL)]


def issues(node, path):
    """Messages of the validator but for texture coordinates that no texture uses: they are there to paint on."""
    done = subprocess.run([*node, str(path)], capture_output=True, text=True, timeout=120, check=True)
    (report,) = json.loads(done.stdout)
    messages = report["issues"]["messages"]
    return [m for m in messages if (m["code"], m["pointer"][-10:]) != ("UNUSED_OBJECT", "TEXCOORD_0")]


def test_the_glb_of_a_run_is_faultless(node, tiny_run):
    assert issues(node, tiny_run.output("evaluate") / "face.glb") == []


def test_the_glb_of_the_ict_face_is_faultless(node, tmp_path):
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no ICT face")
    model = load_face_model("ict")
    expressions = expression_morphs(model.ex_basis, model.ex_names, model.ex_range)
    assert set(expressions) > ARKIT
    modes = {f"id_mode_{i}": model.id_basis[:, :, i] for i in range(2)}
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = export_glb(
        tmp_path / "ict.glb", model.mean, model.faces, uv=model.uv, texture=picture, morph_targets=modes | expressions
    )
    assert issues(node, path) == []

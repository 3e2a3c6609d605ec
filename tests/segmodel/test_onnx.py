"""The exported decoders, run by another runtime."""

import json
import sys

import numpy as np
import pytest
import torch

from segmodel import PARTS, REGIONS, export_onnx


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="ONNX export needs the extra onnx")
    folder = tmp_path_factory.mktemp("onnx")
    return folder, export_onnx(model, folder)


def run(path, z):
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"z": z.numpy()})
    return found, session.get_modelmeta().custom_metadata_map


def test_every_file_decodes_to_the_same_millimetres_for_any_batch(model, exported, generator):
    folder, paths = exported
    assert [p.name for p in paths] == [f"decoder_{r}.onnx" for r in REGIONS] + ["offsets.onnx", "decoders.json"]
    for batch in (1, 5):
        for region in REGIONS:
            z = torch.randn(batch, model.latent_dims[region], generator=generator)
            vertices, properties = run(folder / f"decoder_{region}.onnx", z)
            assert np.abs(vertices - model.decode_part(region, z).detach().numpy()).max() < 1e-4
            assert properties["region"] == region
            assert properties["units"] == "mm"
            assert properties["topology_hash"] == model.layout.topology_hash
        z = torch.randn(batch, model.latent_dims["rest"], generator=generator)
        offsets, _ = run(folder / "offsets.onnx", z)
        assert offsets.shape == (batch, len(PARTS), 2)
        np.testing.assert_allclose(offsets, model.offsets(z).detach().numpy(), atol=1e-4)


def test_the_json_is_enough_to_put_a_face_together(model, exported, shapes):
    folder, _ = exported
    description = json.loads((folder / "decoders.json").read_text())
    z = {region: latents.detach() for region, latents in model.encode(shapes.vertices([4])).items()}
    offsets, _ = run(folder / description["offsets"], z["rest"])
    face = np.zeros((description["n_vertices"], 3), np.float32)
    for region in ("rest", *description["parts"]):
        entry = description["regions"][region]
        face[entry["vertex_ids"]] = run(folder / entry["file"], z[region])[0][0]
        if region != "rest":
            face[entry["vertex_ids"], 1:] += offsets[0, description["parts"].index(region)]
        np.testing.assert_allclose(entry["latent_std"], model.latent_std[region].numpy(), rtol=1e-6)
    np.testing.assert_allclose(face, model.decode(z, blend=False)[0].detach().numpy(), atol=1e-3)


def test_a_missing_library_is_named_with_its_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"neo3df-segmodel\[onnx\]"):
        export_onnx(model, tmp_path)

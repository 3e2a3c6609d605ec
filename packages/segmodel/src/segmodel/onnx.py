"""The decoders as ONNX files, for programs without PyTorch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segmodel._files import write_json, write_whole
from segmodel.model import SegmentModel
from segmodel.parts import PARTS, REGIONS

if TYPE_CHECKING:
    from segmodel.vae import PartVae


class _Decoder(nn.Module):
    """The decoding half of a part model as a module of its own, which is what the exporter wants."""

    def __init__(self, vae: PartVae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(z)


def export_onnx(model: SegmentModel, directory: str | Path) -> list[Path]:
    """Write the decoders of ``model`` into ``directory`` (created if needed), and return the files' paths.

    ``decoder_REGION.onnx`` for each region takes ``z (B, D)`` to ``vertices (B, n, 3)``, mm, float32, any B; a part
    comes out re-centred in y and z. ``offsets.onnx`` takes the rest's ``z (B, D)`` to ``offsets (B, 5, 2)``, the parts'
    box centres in y and z, mm. ``decoders.json`` says which file is what, the topology's hash, and the ``vertex_ids``
    (n) of each region in the whole mesh. A face is put together as by :meth:`SegmentModel.compose`: the rest's vertices
    at their ids, then over them each part's, moved by its offset. Seam blending is not in the files.

    Raises:
        ImportError: onnx or onnxscript is not installed (extra ``onnx``).
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    common = {"units": "mm", "topology_hash": model.layout.topology_hash}
    paths, regions = [], {}
    for region in REGIONS:
        path, dim = folder / f"decoder_{region}.onnx", model.latent_dims[region]
        write_whole(path, _onnx(_Decoder(model.vae(region)), dim, "vertices", {**common, "region": region}))
        ids = model.layout.vertices(region).tolist()
        mean, std = (values[region].tolist() for values in (model.latent_mean, model.latent_std))
        regions[region] = {
            "file": path.name,
            "latent_dim": dim,
            "latent_mean": mean,
            "latent_std": std,
            "vertex_ids": ids,
        }
        paths.append(path)
    offsets = folder / "offsets.onnx"
    properties = {**common, "parts": ",".join(PARTS), "axes": "y,z"}
    write_whole(offsets, _onnx(model.offset_regressor, model.latent_dims["rest"], "offsets", properties))
    described = folder / "decoders.json"
    n_vertices = model.layout.n_vertices
    write_json(
        described,
        {**common, "n_vertices": n_vertices, "parts": list(PARTS), "offsets": offsets.name, "regions": regions},
    )
    return [*paths, offsets, described]


def _onnx(module: nn.Module, latent_dim: int, output: str, properties: dict[str, str]) -> bytes:
    """A module from ``z (B, D)`` to one output, as an ONNX file with these properties."""
    try:
        import onnx
        import onnxscript  # noqa: F401  (PyTorch's exporter writes with it)
    except ImportError as error:
        raise ImportError("ONNX files need onnx and onnxscript: pip install neo3df-segmodel[onnx]") from error
    example = torch.zeros(2, latent_dim, device=next(module.parameters()).device)
    program = torch.onnx.export(
        module.eval(),
        (example,),
        input_names=["z"],
        output_names=[output],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    buffer = io.BytesIO()
    proto = program.model_proto
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, buffer)
    return buffer.getvalue()

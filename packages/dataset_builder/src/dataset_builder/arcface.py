"""ArcFace (Deng et al. 2019): the IR-SE-50 network that facexlib describes, its weights from a file."""

from pathlib import Path

import torch
from torch import nn

from ._checkpoints import fill_network, read_state
from .torchvision_compat import ensure_torchvision

EMBEDDING = 512


def arcface_network() -> nn.Module:
    """IR-SE-50 with random weights: (B, 3, 112, 112) float in -1..1, BGR, to embeddings (B, 512) of unit length.

    Raises:
        ImportError: facexlib or torchvision is not installed; the message names the extra.
    """
    ensure_torchvision()
    try:
        from facexlib.recognition.arcface_arch import Backbone
    except ImportError as error:
        raise ImportError("ArcFace needs facexlib: pip install 'neo3df-dataset-builder[photos]'") from error
    network: nn.Module = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
    return network


def load_arcface(weights: Path) -> nn.Module:
    """The network with the weights of ``recognition_arcface_ir_se50.pth``, in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds another network; one line says which keys.
        ImportError: see :func:`arcface_network`.
    """
    with torch.device("meta"):
        network = arcface_network()
    fill_network(network, read_state(weights), weights)
    return network.eval()

"""Exact linear maps inside ReLU networks, used to start training at a least squares optimum.

A value x passes through a ReLU as the pair ``relu(x), relu(-x)`` and is recovered as their difference. So k values pass
exactly through any layer of at least 2k units. The units left over keep their random weights and learn from there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def thread_hidden(layers: Sequence[nn.Linear], weight: Tensor, bias: Tensor) -> None:
    """Make the hidden ``layers`` (each followed by a ReLU) carry ``x @ weight.T + bias`` as k pairs.

    ``weight (k, in)``, ``bias (k,)``. Units 0..k-1 carry the positive, k..2k-1 the negative parts; they take nothing
    from the other units. Raises ValueError when a layer has fewer than 2k units.
    """
    k = len(weight)
    narrow = min(layer.out_features for layer in layers)
    if narrow < 2 * k:
        raise ValueError(f"{k} linear values need hidden layers of {2 * k} units, the narrowest has {narrow}: reduce k")
    first, *others = layers
    first.weight[: 2 * k] = torch.cat([weight, -weight])
    first.bias[: 2 * k] = torch.cat([bias, -bias])
    for layer in others:
        layer.weight[: 2 * k] = 0.0
        layer.weight[: 2 * k, : 2 * k] = torch.eye(2 * k)
        layer.bias[: 2 * k] = 0.0


@torch.no_grad()
def read_threads(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Make the output ``layer`` return ``x @ weight.T + bias`` of the k threaded values: ``weight (out, k)``."""
    k = weight.shape[1]
    layer.weight.zero_()
    layer.weight[:, :k] = weight
    layer.weight[:, k : 2 * k] = -weight
    layer.bias.copy_(bias)

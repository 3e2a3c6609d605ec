"""The VAEs of several regions as one network: every layer is one batched product, zero-padded to the widest region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segmodel._subspace import ShapePenalty
from segmodel.vae import PartVae, VaeLoss, kl_to_standard_normal, reparameterise

_LAYERS = ("encoder_in", "encoder_mid", "mu_head", "logvar_head", "decoder_in", "decoder_mid", "decoder_out")


@dataclass(frozen=True)
class StackedFit:
    """What is minimised besides the KL, for P regions of rank at most r, zero-padded.

    ``error (P, r, r)``: the factor of reconstruction and, where it applies, smoothness of differences; ``penalty``:
    that of the decoded shapes, its tensors ``(P, r, r)``, ``(P, 1, r)`` and ``(P, 1, 1)``.
    """

    error: Tensor
    penalty: ShapePenalty | None = None

    @classmethod
    def of(cls, regions: Sequence[tuple[Tensor, ShapePenalty | None]]) -> StackedFit:
        """Stack the factors of the regions: all have a penalty, or none."""
        penalties = [penalty for _, penalty in regions if penalty is not None]
        names = ("factor", "offset", "constant")
        stacked = ShapePenalty(*(pad_stack([getattr(p, n) for p in penalties]) for n in names)) if penalties else None
        return cls(pad_stack([error for error, _ in regions]), stacked)

    def to(self, device: str) -> StackedFit:
        """The same on another device."""
        moved = self.penalty and ShapePenalty(*(tensor.to(device) for tensor in vars(self.penalty).values()))
        return StackedFit(self.error.to(device), moved)


class VaeStack(nn.Module):
    """P networks :class:`segmodel.vae.PartVae` with the weights stacked: one step costs seven products, not 7 P.

    Padding is exact: padded weights start at zero and, because padded inputs and noise are zero, their gradient is zero
    for ever. The layers are ``weights[name] (P, in, out)`` and ``biases[name] (P, 1, out)``.

    Args:
        vaes: the networks to copy; :meth:`write_back` returns the trained weights to them.
    """

    latent_mask: Tensor
    scale: Tensor

    def __init__(self, vaes: Sequence[PartVae]) -> None:
        super().__init__()
        self.latent_dim = max(vae.latent_dim for vae in vaes)
        self.rank = max(vae.basis.shape[1] for vae in vaes)
        layers = {name: [getattr(vae, name) for vae in vaes] for name in _LAYERS}
        self.weights = nn.ParameterDict({n: pad_stack([x.weight.detach().T for x in ls]) for n, ls in layers.items()})
        self.biases = nn.ParameterDict({n: pad_stack([x.bias.detach()[None] for x in ls]) for n, ls in layers.items()})
        self.register_buffer("scale", torch.stack([vae.scale for vae in vaes])[:, None, None])
        self.register_buffer("latent_mask", pad_stack([vae.scale.new_ones(1, vae.latent_dim) for vae in vaes]))

    @torch.no_grad()
    def write_back(self, vaes: Sequence[PartVae]) -> None:
        """Copy the weights into the networks this stack was made of."""
        for name in _LAYERS:
            for i, vae in enumerate(vaes):
                layer: nn.Linear = getattr(vae, name)
                layer.weight.copy_(self.weights[name][i].T[: layer.out_features, : layer.in_features])
                layer.bias.copy_(self.biases[name][i, 0, : layer.out_features])

    def encode(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(P, B, D)``, of ``coordinates (P, B, r)`` mm."""
        hidden = self._layer("encoder_in", coordinates / self.scale).relu()
        hidden = self._layer("encoder_mid", hidden).relu()
        return self._layer("mu_head", hidden).float(), self._layer("logvar_head", hidden).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Coordinates ``(P, B, r)`` mm of ``latents (P, B, D)``."""
        hidden = self._layer("decoder_in", latents).relu()
        hidden = self._layer("decoder_mid", hidden).relu()
        return self.scale * self._layer("decoder_out", hidden).float()

    def loss(self, coordinates: Tensor, fit: StackedFit, noise: Tensor, precision: torch.dtype) -> VaeLoss:
        """The terms of :func:`segmodel.vae.vae_loss`, ``(P,)`` each, for ``coordinates (P, B, r)``.

        ``noise (P, B, D)`` standard normal. With ``precision`` bfloat16 the layers multiply in it; weights, loss and
        gradients of the weights stay float32.
        """
        with torch.autocast(coordinates.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            mu, logvar = self.encode(coordinates)
            decoded = self.decode(reparameterise(mu, logvar, noise * self.latent_mask))
        value = torch.bmm(decoded - coordinates, fit.error).square().sum(dim=2).mean(dim=1)
        if fit.penalty is not None:
            curved = torch.baddbmm(fit.penalty.offset, decoded, fit.penalty.factor)
            value = value + curved.square().sum(dim=2).mean(dim=1) + fit.penalty.constant[:, 0, 0]
        return VaeLoss(fit=value, kl=kl_to_standard_normal(mu, logvar).sum(dim=2).mean(dim=1))

    forward = loss  # so that DistributedDataParallel, which wraps forward alone, can average its gradients

    def _layer(self, name: str, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.biases[name], inputs, self.weights[name])


def pad_stack(tensors: Sequence[Tensor]) -> Tensor:
    """``(P, m, n)`` of P matrices of at most m rows and n columns, zeros where a matrix is smaller."""
    rows, columns = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
    stacked = tensors[0].new_zeros(len(tensors), rows, columns)
    for slot, tensor in zip(stacked, tensors, strict=True):
        slot[: tensor.shape[0], : tensor.shape[1]] = tensor
    return stacked

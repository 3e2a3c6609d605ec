"""The part VAE as the paper has it: layers as wide as 3n vertex coordinates, losses on vertices; with the right KL."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from segmodel import REGIONS, LinearShapes, PartLayout, PartVae, kl_to_standard_normal, recentre
from segmodel._mesh import cotangent_laplacian, renumber

HIDDEN = (512, 128)


class SparseProduct(torch.autograd.Function):
    """A constant sparse matrix times a dense one, with the transpose at hand for the gradient."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ gradient, None, None


class DenseVae(nn.Module):
    """3n -> 512 -> 128 -> (mu, logvar), D -> 128 -> 512 -> 3n, the mean shape taken off and put on again.

    ``loss`` is squared vertex errors summed over vertices, plus ``lambda_smooth`` times the squared cotangent Laplacian
    of the error, plus ``lambda_kl`` times KL, mean over the batch: what the reduced networks minimise.
    """

    def __init__(
        self, mean: Tensor, laplacian: Tensor, latent_dim: int, lambda_smooth: float, lambda_kl: float
    ) -> None:
        super().__init__()
        wide, narrow = HIDDEN
        self.register_buffer("mean", mean)
        self.laplacian, self.transposed = (_torch(m, mean.dtype) for m in (laplacian, laplacian.T.tocsr()))
        self.lambda_smooth, self.lambda_kl = lambda_smooth, lambda_kl
        self.encoder = nn.Sequential(nn.Linear(len(mean), wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU())
        self.mu_head, self.logvar_head = nn.Linear(narrow, latent_dim), nn.Linear(narrow, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, narrow), nn.ReLU(), nn.Linear(narrow, wide), nn.ReLU(), nn.Linear(wide, len(mean))
        )

    def loss(self, vertices: Tensor, noise: Tensor) -> Tensor:
        """``vertices (B, 3n)`` mm, re-centred for a part; ``noise (B, D)``."""
        hidden = self.encoder(vertices - self.mean)
        mu, logvar = self.mu_head(hidden), self.logvar_head(hidden)
        error = self.decoder(mu + torch.exp(0.5 * logvar) * noise) + self.mean - vertices
        # columns of (n, B 3): one sparse product for the batch
        columns = error.view(len(error), -1, 3).transpose(0, 1).reshape(-1, 3 * len(error))
        smooth = SparseProduct.apply(columns, self.laplacian, self.transposed).square().sum()
        fit = (error.square().sum() + self.lambda_smooth * smooth) / len(error)
        return fit + self.lambda_kl * kl_to_standard_normal(mu, logvar).sum(dim=1).mean()

    @torch.no_grad()
    def take(self, vae: PartVae) -> "DenseVae":
        """The weights of a reduced network, spread out over the vertices; returns itself."""
        dtype = self.mean.dtype
        basis, scale = vae.basis.to(dtype), vae.scale.to(dtype)
        for mine, theirs in (
            (self.encoder[2], vae.encoder_mid),
            (self.mu_head, vae.mu_head),
            (self.logvar_head, vae.logvar_head),
            (self.decoder[0], vae.decoder_in),
            (self.decoder[2], vae.decoder_mid),
        ):
            mine.load_state_dict(theirs.state_dict())
        self.encoder[0].weight.copy_(vae.encoder_in.weight.to(dtype) @ basis.T / scale)
        self.encoder[0].bias.copy_(vae.encoder_in.bias)
        self.decoder[4].weight.copy_(scale * basis @ vae.decoder_out.weight.to(dtype))
        self.decoder[4].bias.copy_(scale * basis @ vae.decoder_out.bias.to(dtype))
        return self


def _torch(matrix: sp.csr_matrix, dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its sparse matrices beta
        arrays = (torch.from_numpy(np.asarray(x)) for x in (matrix.indptr, matrix.indices, matrix.data))
        return torch.sparse_csr_tensor(*arrays, size=matrix.shape).to(dtype)


def region_laplacian(layout: PartLayout, region: str) -> sp.csr_matrix:
    """Cotangent Laplacian ``(n, n)`` of a region on the template."""
    ids = layout.vertices(region)
    return cotangent_laplacian(layout.template[ids], renumber(layout.part_faces(region), ids, layout.n_vertices))


def region_vertices(layout: PartLayout, shapes: LinearShapes, rows: range) -> dict[str, Tensor]:
    """Flattened vertices ``(B, 3n)`` float32 of each region, parts re-centred, as a dense training would have them."""
    faces = shapes.vertices(rows)
    own = {region: faces[:, layout.vertices(region)] for region in REGIONS}
    return {r: (v if r == "rest" else recentre(v)[0]).flatten(1) for r, v in own.items()}


def dense_vaes(
    layout: PartLayout, vertices: Mapping[str, Tensor], dims: Mapping[str, int], lambda_smooth: float, lambda_kl: float
) -> dict[str, DenseVae]:
    """Untrained dense networks of all regions; the mean is that of the given faces."""
    return {
        region: DenseVae(
            vertices[region].mean(dim=0),
            region_laplacian(layout, region),
            dims[region],
            lambda_smooth,
            lambda_kl,
        )
        for region in REGIONS
    }

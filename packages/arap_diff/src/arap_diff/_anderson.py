"""Anderson acceleration of fixed-point iterations (Anderson 1965; for ARAP, Peng et al. 2018), for a batch."""

import torch
from torch import Tensor

DEPTH = 6  # earlier steps combined; beyond it the count of solves hardly falls
REGULARISATION = 1e-13  # of the normal equations, as a share of their trace


class Anderson:
    """Proposes the next iterates x (B, n) of x = F(x), one problem per row.

    The proposal is the combination of the last images F(x) whose residuals F(x) - x, combined alike, are smallest. A
    row whose residual has grown forgets its past and takes a plain step.
    """

    def __init__(self) -> None:
        self._images: list[Tensor] = []
        self._residuals: list[Tensor] = []

    def next(self, x: Tensor, image: Tensor) -> Tensor:
        """The iterate after x, whose image F(x) is given."""
        residual = image - x
        if self._residuals:
            grown = (residual.norm(dim=1) > self._residuals[-1].norm(dim=1))[:, None]
            if grown.any():
                self._images = [torch.where(grown, image, past) for past in self._images]
                self._residuals = [torch.where(grown, residual, past) for past in self._residuals]
        self._images = [*self._images[-DEPTH:], image]
        self._residuals = [*self._residuals[-DEPTH:], residual]
        if len(self._images) == 1:
            return image
        image_steps = torch.stack(self._images, dim=1).diff(dim=1)
        residual_steps = torch.stack(self._residuals, dim=1).diff(dim=1)
        gram = residual_steps @ residual_steps.mT
        damping = REGULARISATION * gram.diagonal(dim1=1, dim2=2).sum(1) + torch.finfo(gram.dtype).tiny
        gram = gram + damping[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        share = torch.linalg.solve(gram, residual_steps @ residual[..., None])
        return image - (image_steps * share).sum(1)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows (B,) of the batch only."""
        if not rows.all():
            self._images = [past[rows] for past in self._images]
            self._residuals = [past[rows] for past in self._residuals]

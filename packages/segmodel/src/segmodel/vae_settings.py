"""How the part VAEs are trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

_DEFAULTS = {"pca": (6, 1e-4), "random": (30, 1e-3)}  # epochs, learning rate


@dataclass(frozen=True)
class VaeSettings:
    """How the part VAEs are trained.

    Attributes:
        init: ``"pca"`` starts every network exactly at the PCA of its region and improves on it within a few epochs;
            ``"random"`` is PyTorch's initialisation, as in the paper, and takes five times as long to get there.
        rest_dim, part_dim: latent sizes.
        epochs, batch, lr: Adam with 2 % warm-up and a cosine down to 0. None is 6 epochs at 1e-4 from PCA, 30 at 1e-3
            from random weights. Processes that train together, see :func:`segmodel.train.train_segment_vaes`, divide
            each batch among them.
        lambda_kl, lambda_smooth: weights of the KL term (nats) and of the squared cotangent Laplacian coordinates
            (mm^2) against the squared vertex errors summed over vertices (mm^2). The paper uses 0.01 and 1.
        smoothness: whose Laplacian coordinates: those of the ``"difference"`` of the decoded shape to the true one,
            which a perfect decoder takes to zero, or of the decoded shape itself, ``"absolute"``, which flattens lips
            and nostrils.
        patience: stop when for so many epochs no region's held-out error has reached a new minimum, and keep of each
            region the weights of its best epoch, the start included; None trains to the end and keeps the last. The
            cosine is laid out over ``epochs`` whatever happens, and the error falls most while the rate nears 0: with
            enough faces nothing stops early. Patience guards against learning a few hundred faces by heart; to save
            time lower ``epochs``.
        precision: of the layers' products, ``"float32"`` or ``"bfloat16"`` (autocast; weights, loss and Adam stay
            float32). The held-out error changes by up to 2 %, either way. It is meant for large batches on CUDA; a
            CPU with bfloat16 instructions gains a quarter at batch 64 and loses beyond.
        seed: of weights, batches, noise and the validation split.
        validation_fraction: share of the faces held out, unless the validation rows are given.
        device: where the networks are trained; the returned model is on the CPU. Processes with a GPU each all give
            ``"cuda"``, after ``torch.cuda.set_device``.

    Raises:
        ValueError: a value is outside its range.
    """

    init: str = "pca"
    rest_dim: int = 30
    part_dim: int = 10
    epochs: int | None = None
    batch: int = 64
    lr: float | None = None
    lambda_kl: float = 0.1
    lambda_smooth: float = 1.0
    smoothness: str = "difference"
    patience: int | None = 6
    precision: str = "float32"
    seed: int = 0
    validation_fraction: float = 0.1
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("init", ("pca", "random")),
            ("smoothness", ("difference", "absolute")),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use {allowed[0]!r} or {allowed[1]!r}")
        for name in ("rest_dim", "part_dim", "batch", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.n_epochs < 0 or self.lambda_kl < 0 or self.lambda_smooth < 0:
            raise ValueError("epochs, lambda_kl and lambda_smooth must not be negative")

    @property
    def n_epochs(self) -> int:
        """``epochs``, or what this initialisation needs."""
        return _DEFAULTS[self.init][0] if self.epochs is None else self.epochs

    @property
    def peak_lr(self) -> float:
        """``lr``, or what suits this initialisation."""
        return _DEFAULTS[self.init][1] if self.lr is None else self.lr

    def latent_dim(self, region: str) -> int:
        """Latent size D of a region."""
        return self.rest_dim if region == "rest" else self.part_dim

    def as_json(self) -> dict[str, Any]:
        """All values by name, with no None for what has a default by initialisation."""
        return asdict(replace(self, epochs=self.n_epochs, lr=self.peak_lr))

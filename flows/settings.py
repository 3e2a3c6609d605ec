"""What can be configured: one section per stage, with the recommended settings of the method as defaults."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


def _expanded(value: Any) -> Any:
    """Environment variables in a path, ``${NAME}``; a name that is not set is an error, not an empty string."""
    if not isinstance(value, str):
        return value
    if missing := [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]:
        raise ValueError(f"a path with the environment variable {missing[0]} set")
    return os.path.expandvars(value)


InputPath = Annotated[Path, BeforeValidator(_expanded)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(Section):
    """Which face model and which photographs: synthetic ones, or a folder's, with masks and a manifest if there are."""

    face_model: str = "synthetic"
    images: InputPath | None = None
    masks: InputPath | None = None
    manifest: InputPath | None = None
    clean: dict[str, float] = {}
    n_photos: PositiveInt = 240
    landmark_noise_px: NonNegativeFloat = 1.0
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    shard_size: PositiveInt = 60


class LabelsConfig(Section):
    """Transfer of 2D parsing labels to the vertices."""

    calibrate: bool = True


class SegmentsConfig(Section):
    """Part variational autoencoders (NEO-3DF section 3.1), on random faces of the face model, and seam blending."""

    n_shapes: PositiveInt = 20000
    init: Literal["pca", "random"] = "pca"
    rest_dim: PositiveInt = 30
    part_dim: PositiveInt = 10
    epochs: NonNegativeInt = 6
    batch: PositiveInt = 64
    lr: PositiveFloat | None = None
    lambda_kl: NonNegativeFloat = 0.1
    lambda_smooth: NonNegativeFloat = 1.0
    radius_mm: PositiveFloat = 30.0
    n_solves: PositiveInt = 3


class RegressorsConfig(Section):
    """The encoder of photographs and the image regressors F_i."""

    encoder: Literal["small", "mobilefacenet"] = "small"
    encoder_epochs: PositiveInt = 30
    epochs: PositiveInt = 100
    batch: PositiveInt = 64
    lr: PositiveFloat = 3e-4
    lambda_kl: NonNegativeFloat = 0.01
    weight_decay: NonNegativeFloat = 0.05
    dropout: float = Field(default=0.1, ge=0, lt=1)


class ControllersConfig(Section):
    """Linear maps from named measurements to latents."""

    n_faces: PositiveInt = 2000
    ridge: NonNegativeFloat = 0.0


class FineTuneConfig(Section):
    """Fine-tuning on parsing masks; ``balance``: parsing gradient over shape gradient, at first."""

    epochs: NonNegativeInt = 8
    batch: PositiveInt = 16
    lr: PositiveFloat = 1e-3
    encoding_noise: NonNegativeFloat = 0.2
    lambda_kl: NonNegativeFloat = 0.01
    balance: PositiveFloat = 10.0


class FitConfig(Section):
    """Per-photo fitting to the mask (NEO-3DF section 4.3): where it starts, what may move, and how it is weighed."""

    start: Literal["network", "landmark"] = "landmark"
    variables: Literal["controls", "latents"] = "controls"
    offsets: bool = True
    expression: bool = False
    pose: bool = False
    blend: bool = True
    iterations: PositiveInt = 20
    learning_rate: PositiveFloat = 0.1
    prior: NonNegativeFloat = 1e-3
    ramp_px: PositiveFloat = 10.0
    batch_size: PositiveInt = 8
    shard_size: PositiveInt = 32


class EvaluateConfig(Section):
    """How many faces the report shows."""

    n_examples: PositiveInt = 6


class RunConfig(Section):
    """Everything that decides what a run computes, and where it is kept."""

    seed: NonNegativeInt = 0
    run_dir: Path = Path("runs/default")
    dataset: DatasetConfig = DatasetConfig()
    labels: LabelsConfig = LabelsConfig()
    segments: SegmentsConfig = SegmentsConfig()
    regressors: RegressorsConfig = RegressorsConfig()
    controllers: ControllersConfig = ControllersConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()
    fit: FitConfig = FitConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

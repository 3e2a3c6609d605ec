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
    ValidationInfo,
    field_validator,
)


def _expanded(value: Any) -> Any:
    """Environment variables in a path, ``${NAME}``; a name that is not set is an error, not an empty string."""
    if not isinstance(value, str):
        return value
    if missing := [name for name in re.findall(r"\$\{(\w+)\}", value) if name not in os.environ]:
        raise ValueError(f"a path with the environment variable {missing[0]} set")
    return os.path.expandvars(value)


Photos = Literal["clean", "all"]
Gradient = Literal["label-edge", "label-edge-shared", "interpolation", "antialias", "edge"]
InputPath = Annotated[Path, BeforeValidator(_expanded)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetConfig(Section):
    """Which face model and which photographs: synthetic ones, or a folder's, with masks and a manifest if there are.

    ``fold`` of ``n_folds`` validates on that part of the people and trains on the others (cross-validation), in place
    of ``validation_share``.
    """

    face_model: str = "synthetic"
    images: InputPath | None = None
    masks: InputPath | None = None
    manifest: InputPath | None = None
    clean: dict[str, float] = {}
    n_photos: PositiveInt = 240
    landmark_noise_px: NonNegativeFloat = 1.0
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    n_folds: int = Field(default=5, ge=2)
    fold: NonNegativeInt | None = None
    shard_size: PositiveInt = 60

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int | None, info: ValidationInfo) -> int | None:
        if fold is not None and fold >= info.data.get("n_folds", fold + 1):
            raise ValueError(f"less than n_folds, {info.data['n_folds']}")
        if fold is not None and info.data.get("images") is None:
            raise ValueError("no fold for synthetic faces: give dataset.images")
        return fold


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


class ModesConfig(Section):
    """Part spaces learned from masks: how many modes per part (0: none), and the fits they are learned from."""

    n_modes: NonNegativeInt = 0
    global_modes: bool = False
    iterations: PositiveInt = 60
    free_form_iterations: PositiveInt = 60
    prior: NonNegativeFloat = 3e-4
    ramp_px: PositiveFloat = 5.0
    batch_size: PositiveInt = 8
    shard_size: PositiveInt = 32


class FitConfig(Section):
    """Per-photo fitting to the mask (NEO-3DF section 4.3): where it starts, what may move, and how it is weighed.

    ``variables``: controls or latents of the parts, none of them, or "global": the face model's identity and no parts
    at all. ``offsets`` move a part in y and z (the paper's) or in x, y and z. ``modes`` adds the learned modes, held by
    a prior of their own. ``loop_solves``: linear solves of the blending inside the loop; what is reported is always
    blended in full. ``binary_after``: the iteration from which the target ramp is a step. ``gradient``: of the rendered
    parts, see ``fitting.PartRenderer``. ``photos``: which validation faces are fitted and evaluated.
    """

    photos: Photos = "clean"
    start: Literal["network", "landmark"] = "landmark"
    variables: Literal["controls", "latents", "none", "global"] = "controls"
    offsets: Literal["none", "yz", "xyz"] = "yz"
    modes: bool = False
    expression: bool = False
    pose: bool = False
    blend: bool = True
    loop_solves: PositiveInt = 1
    iterations: PositiveInt = 20
    learning_rate: PositiveFloat = 0.1
    prior: NonNegativeFloat = 1e-3
    modes_prior: NonNegativeFloat = 1e-4
    ramp_px: PositiveFloat = 10.0
    binary_after: PositiveInt | None = None
    flip_penalty: NonNegativeFloat = 0.0
    loss: Literal["region", "frobenius"] = "region"
    gradient: Gradient = "label-edge"
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
    modes: ModesConfig = ModesConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()
    fit: FitConfig = FitConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

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
    """Environment variables in a path, or several, ``${NAME}``; a name that is not set is an error, not nothing."""
    if isinstance(value, list | tuple):
        return tuple(_expanded(each) for each in value)
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
    """Which face model and which photographs: synthetic ones, or those of a folder or several, with masks if there are.

    ``masks``: for several folders a list of as many, null where a folder has none. ``parser`` labels the photographs
    that have no mask file; its weights are an asset, or the file ``parser_weights``. ``estimator`` finds identity,
    expression and pose: by the landmarks, or Deep3DMM by the pixels, whose weights are the file ``estimator_weights``.
    ``fold`` of ``n_folds`` validates on that part of the people and trains on the others (cross-validation), in place
    of ``validation_share``.
    """

    face_model: Annotated[str, BeforeValidator(_expanded)] = "synthetic"
    images: Annotated[Path | tuple[Path, ...] | None, BeforeValidator(_expanded)] = None
    masks: Annotated[Path | tuple[Path | None, ...] | None, BeforeValidator(_expanded)] = None
    manifest: InputPath | None = None
    clean: dict[str, float] = {}
    parser_weights: InputPath | None = None
    parser: Literal["none", "bisenet", "parsenet", "small"] = Field(default="none", validate_default=True)
    estimator_weights: InputPath | None = None
    estimator: Literal["landmarks", "deep3dmm"] = Field(default="landmarks", validate_default=True)
    n_photos: PositiveInt = 240
    landmark_noise_px: NonNegativeFloat = 1.0
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    n_folds: int = Field(default=5, ge=2)
    fold: NonNegativeInt | None = None
    shard_size: PositiveInt = 60

    @property
    def folders(self) -> tuple[tuple[Path, Path | None], ...]:
        """Each folder of photographs and that of its masks; none for synthetic faces."""
        images = _several(self.images)
        masks = _several(self.masks) or (None,) * len(images)
        return tuple(zip(images, masks, strict=True)) if images else ()

    @field_validator("images")
    @classmethod
    def _at_least_one(cls, images: Path | tuple[Path, ...] | None) -> Path | tuple[Path, ...] | None:
        if images == ():
            raise ValueError("a folder, or several")
        return images

    @field_validator("masks")
    @classmethod
    def _one_for_each_folder(cls, masks: Any, info: ValidationInfo) -> Any:
        wanted, given = len(_several(info.data.get("images"))), len(_several(masks))
        if wanted and given and wanted != given:
            raise ValueError(f"a list of {wanted}, one folder of masks, or null, for each folder of dataset.images")
        return masks

    @field_validator("parser")
    @classmethod
    def _with_its_weights(cls, parser: str, info: ValidationInfo) -> str:
        weights = info.data.get("parser_weights")
        if parser != "none" and info.data.get("images") is None:
            raise ValueError("none for synthetic faces, whose masks are exact: give dataset.images")
        if parser == "none" and weights is not None:
            raise ValueError("the parser whose weights dataset.parser_weights are")
        if parser == "small" and weights is None:
            raise ValueError("dataset.parser_weights with it, the file of a parser that was trained")
        return parser

    @field_validator("estimator")
    @classmethod
    def _whose_weights(cls, estimator: str, info: ValidationInfo) -> str:
        if estimator == "landmarks" and info.data.get("estimator_weights") is not None:
            raise ValueError("the estimator whose weights dataset.estimator_weights are; landmarks need none")
        return estimator

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int | None, info: ValidationInfo) -> int | None:
        if fold is not None and fold >= info.data.get("n_folds", fold + 1):
            raise ValueError(f"less than n_folds, {info.data['n_folds']}")
        if fold is not None and info.data.get("images") is None:
            raise ValueError("no fold for synthetic faces: give dataset.images")
        return fold


def _several(paths: Any) -> tuple[Any, ...]:
    """None, one or several as a tuple."""
    if paths is None:
        return ()
    return paths if isinstance(paths, tuple) else (paths,)


class LabelsConfig(Section):
    """Transfer of 2D parsing labels to the vertices."""

    calibrate: bool = True


class SegmentsConfig(Section):
    """Part variational autoencoders (NEO-3DF section 3.1), on random faces of the face model, and seam blending.

    ``epochs`` and ``lr`` follow ``init`` unless given. ``smoothness`` of the difference to the true shape, or of the
    decoded shape itself. ``patience``: epochs without a new minimum of the held-out error before training stops.
    """

    n_shapes: PositiveInt = 20000
    init: Literal["pca", "random"] = "pca"
    rest_dim: PositiveInt = 30
    part_dim: PositiveInt = 10
    epochs: NonNegativeInt | None = None
    batch: PositiveInt = 64
    lr: PositiveFloat | None = None
    lambda_kl: NonNegativeFloat = 0.1
    lambda_smooth: NonNegativeFloat = 1.0
    smoothness: Literal["difference", "absolute"] = "difference"
    patience: PositiveInt | None = 6
    radius_mm: PositiveFloat = 30.0
    n_solves: PositiveInt = 3


class BaselinesConfig(Section):
    """Rivals of the part models, trained beside them on the same faces with latents as large; none unless named.

    ``epochs`` of the global VAE, ``steps`` of LD-VAE.
    """

    models: tuple[Literal["global-pca", "global-vae", "ld-vae", "part-pca"], ...] = ()
    epochs: PositiveInt = 30
    steps: PositiveInt = 50000


class RegressorsConfig(Section):
    """The encoder of photographs and the image regressors F_i.

    ``encoder``: "small" is trained here on the landmarks; the others' weights are assets, or the file
    ``encoder_weights``.
    """

    encoder_weights: InputPath | None = None
    encoder: Literal["small", "mobilefacenet", "facenet", "arcface"] = Field(default="small", validate_default=True)
    encoder_epochs: PositiveInt = 30
    epochs: PositiveInt = 100
    batch: PositiveInt = 64
    lr: PositiveFloat = 3e-4
    lambda_kl: NonNegativeFloat = 0.01
    weight_decay: NonNegativeFloat = 0.05
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @field_validator("encoder")
    @classmethod
    def _whose_weights(cls, encoder: str, info: ValidationInfo) -> str:
        if encoder == "small" and info.data.get("encoder_weights") is not None:
            raise ValueError("the encoder whose weights regressors.encoder_weights are; the small one is trained here")
        return encoder


class ControllersConfig(Section):
    """Linear maps from named measurements to latents.

    ``mode``: NEO-3DF's "least_squares", with an optional ``ridge``, or "orthogonal": found on decoded faces, every
    control moves its own measurement by what is asked and the others of its group as little as movements of the latents
    of at most ``longest`` standard deviations, per standard deviation of the measurement, allow.
    """

    n_faces: PositiveInt = 2000
    mode: Literal["least_squares", "orthogonal"] = "orthogonal"
    ridge: NonNegativeFloat = 0.0
    longest: float = Field(default=2.0, ge=1)


class FineTuneConfig(Section):
    """Fine-tuning on parsing masks; ``balance``: parsing gradient over shape gradient, at first.

    ``encoder_lr``: of the encoder's own weights, 0 to leave them as they are; by default 1e-3 for the small encoder,
    which has seen no other photos, and 1e-5 for those that were trained on millions. An epoch shows every photo twice
    where the encoder is trained: as it is, and mirrored.
    """

    epochs: NonNegativeInt = 8
    batch: PositiveInt = 16
    lr: PositiveFloat = 1e-4
    encoder_lr: NonNegativeFloat | None = None
    encoding_noise: NonNegativeFloat = 0.2
    lambda_kl: NonNegativeFloat = 0.01
    balance: PositiveFloat = 2.0

    def encoder_lr_of(self, encoder: str) -> float:
        """The encoder's learning rate, given or the default of that encoder."""
        if self.encoder_lr is not None:
            return self.encoder_lr
        return 1e-3 if encoder == "small" else 1e-5


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
    """How many faces the report shows, and which parser gives a second reference beside the masks, if any.

    A parser's weights are an asset, or the file ``parser_weights``; "small" without that file is trained in
    ``parser_epochs`` on the masks of the clean training photographs.
    """

    n_examples: PositiveInt = 6
    parser: Literal["none", "bisenet", "parsenet", "small"] = "none"
    parser_weights: InputPath | None = Field(default=None, validate_default=True)
    parser_epochs: PositiveInt = 45

    @field_validator("parser_weights")
    @classmethod
    def _of_a_parser(cls, weights: Path | None, info: ValidationInfo) -> Path | None:
        if weights is not None and info.data.get("parser") == "none":
            raise ValueError("nothing, or evaluate.parser with it: the parser whose weights they are")
        return weights


class CellsConfig(Section):
    """The eight cells of NEO-3DF's table 3, each with two step sizes, on this many validation faces; 0: none."""

    n_faces: NonNegativeInt = 0


class EditsConfig(Section):
    """What is measured and drawn of edits (NEO-3DF figures 4 to 7).

    ``n_measured``: random faces on which the rivals' control maps are fitted, by least squares with ``ridge``.
    ``n_checked``: fitted faces on which random edits and the nose edit are measured, of which ``n_shown`` are drawn
    after each of ``n_steps`` edits, one region each.
    """

    n_measured: int = Field(default=2000, ge=50)
    ridge: NonNegativeFloat = 0.02
    n_checked: PositiveInt = 50
    n_shown: PositiveInt = 2
    n_steps: int = Field(default=6, ge=2, le=6)


class RunConfig(Section):
    """Everything that decides what a run computes, and where it is kept."""

    seed: NonNegativeInt = 0
    run_dir: Path = Path("runs/default")
    dataset: DatasetConfig = DatasetConfig()
    labels: LabelsConfig = LabelsConfig()
    segments: SegmentsConfig = SegmentsConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    regressors: RegressorsConfig = RegressorsConfig()
    controllers: ControllersConfig = ControllersConfig()
    modes: ModesConfig = ModesConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()
    fit: FitConfig = FitConfig()
    cells: CellsConfig = CellsConfig()
    edits: EditsConfig = EditsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("evaluate")
    @classmethod
    def _parser_of_photographs(cls, evaluate: EvaluateConfig, info: ValidationInfo) -> EvaluateConfig:
        dataset = info.data.get("dataset")
        if evaluate.parser != "none" and dataset is not None and dataset.images is None:
            raise ValueError("parser none for synthetic faces, whose masks are exact: give dataset.images")
        return evaluate

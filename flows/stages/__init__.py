"""The stages of the pipeline and what each depends on; their bodies are imported only when one has to run."""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..errors import UserError
from ..needed_files import require_files
from ..pipeline import Stage, StageContext
from ..sources import digest_files, face_model_source, mask_source, source_files, weights_source


def _body(module: str, function: str) -> Callable[..., Any]:
    """``flows.stages.<module>.<function>``, imported at the first call: a cached run loads no torch."""

    def call(context: StageContext, *rest: str) -> Any:
        return getattr(importlib.import_module(f"flows.stages.{module}"), function)(context, *rest)

    return call


def _files(stage: str) -> Callable[[RunConfig], None]:
    return lambda config: require_files(config, stage)


def _section(name: str) -> Callable[[RunConfig], Mapping[str, Any]]:
    return lambda config: {"seed": config.seed, name: getattr(config, name).model_dump(mode="json")}


def _dataset(config: RunConfig) -> Mapping[str, Any]:
    """The section without paths, and the content of the files they name."""
    section = config.dataset
    manifest = section.manifest
    content = {
        "face_model": _below(face_model_source(section.face_model)),
        "photos": [
            [digest_files(source_files(images)), _below(mask_source(masks))] for images, masks in section.folders
        ],
        "manifest": digest_files([manifest] if section.folders and manifest is not None else []),
        "parser": _weights(section.parser_weights, "dataset.parser_weights"),
        "estimator": _below(weights_source("dataset.estimator", section.estimator, section.estimator_weights)),
    }
    chosen = section.model_dump(mode="json", exclude=set(INPUT_PATHS))
    if content["face_model"]:
        chosen["face_model"] = Path(section.face_model).name
    return {"seed": config.seed, "dataset": chosen, "content": content}


INPUT_PATHS = ("images", "masks", "manifest", "parser_weights", "estimator_weights")


def _below(place: Path | None) -> str:
    """Digest of a file, or of all files below a folder; empty of nothing."""
    below = [] if place is None else sorted([place, *place.rglob("*")], key=os.fsencode)
    return digest_files([path for path in below if path.is_file()]) if below else ""


def _weights(path: Path | None, key: str) -> str:
    """Digest of the weights that a path names, empty where it names none."""
    if path is None:
        return ""
    if not path.is_file():
        raise UserError(f"{key}: there is no file {path}")
    return digest_files([path])


def _regressors(config: RunConfig) -> Mapping[str, Any]:
    """The section, with the content of the encoder's weights for their path."""
    section = config.regressors
    weights = _weights(section.encoder_weights, "regressors.encoder_weights")
    chosen = section.model_dump(mode="json", exclude={"encoder_weights"})
    return {"seed": config.seed, "regressors": chosen, "encoder_weights": weights}


def _baselines(config: RunConfig) -> Mapping[str, Any]:
    """The section and, of the part models', how many faces they learn from; one value where nothing is trained."""
    section = config.baselines
    if not section.models:
        return {"baselines": {"models": []}}
    chosen = section.model_dump(mode="json")
    return {"seed": config.seed, "baselines": chosen, "n_shapes": config.segments.n_shapes}


def _evaluate(config: RunConfig) -> Mapping[str, Any]:
    """What is drawn, of which fits, by which network."""
    shown = config.evaluate.model_dump(mode="json", exclude={"parser_weights"})
    weights = _weights(config.evaluate.parser_weights, "evaluate.parser_weights")
    fit = config.fit.model_dump(mode="json")
    return {**_regressors(config), "evaluate": shown, "fit": fit, "parser_weights": weights}


def _edits(config: RunConfig) -> Mapping[str, Any]:
    """The section, and which rivals edit beside the part models."""
    section = config.edits.model_dump(mode="json")
    return {"seed": config.seed, "edits": section, "rivals": list(config.baselines.models)}


TRAINED = ("build_dataset", "train_segments")
NETWORK = ("train_regressors", "fine_tune")


def _fit(config: RunConfig) -> Mapping[str, Any]:
    """The section, and of the network only what a start from it reads."""
    encoder = {"encoder": config.regressors.encoder} if config.fit.start == "network" else {}
    return {"seed": config.seed, "fit": config.fit.model_dump(mode="json"), **encoder}


def _rivals(config: RunConfig) -> Mapping[str, Any]:
    """Which rivals, how networks are trained and fine-tuned, and the fit; one value where there are no rivals."""
    if not config.baselines.models:
        return {}
    chosen = {key: getattr(config, key).model_dump(mode="json") for key in ("fine_tune", "fit")}
    return {**_regressors(config), **chosen, "models": list(config.baselines.models)}


RIVALS_NEED = (*TRAINED, "learn_modes", "train_baselines", "train_regressors", "fit_controllers", "fine_tune")


def _spared_by_rivals(config: RunConfig) -> tuple[str, ...]:
    """All where there are no rivals; controllers and our own network but where our parts are fitted without modes."""
    if not config.baselines.models:
        return RIVALS_NEED
    if not config.fit.modes:
        return ("fit_controllers", "fine_tune")
    return () if config.fit.start == "network" else ("fine_tune",)


def _cells(config: RunConfig) -> Mapping[str, Any]:
    """How many faces, and what else is read of the configuration; one value where there are none."""
    n_faces = config.cells.n_faces
    return {"seed": config.seed, "n_faces": n_faces, "encoder": config.regressors.encoder} if n_faces else {}


CELLS_NEED = (*TRAINED, "learn_modes", "train_regressors", "fit_controllers", "fine_tune")

STAGES = (
    Stage(
        "build_dataset",
        _dataset,
        run=_body("dataset", "finish"),
        packages=("dataset_builder",),
        shards=_body("dataset", "shards"),
        run_shard=_body("dataset", "run_shard"),
        require=_files("build_dataset"),
    ),
    Stage(
        "transfer_labels",
        _section("labels"),
        run=_body("labels", "run"),
        needs=("build_dataset",),
        packages=("dataset_builder",),
    ),
    Stage(
        "train_segments",
        _section("segments"),
        run=_body("segments", "run"),
        together=True,
        needs=("build_dataset", "transfer_labels"),
        packages=("segmodel", "arap_diff"),
    ),
    Stage(
        "train_baselines",
        _baselines,
        run=_body("baselines", "run"),
        needs=TRAINED,
        packages=("segmodel",),
        spares=lambda config: () if config.baselines.models else TRAINED,
    ),
    Stage(
        "train_regressors",
        _regressors,
        run=_body("regressors", "run"),
        together=True,
        needs=("build_dataset", "train_segments"),
        packages=("segmodel", "dataset_builder"),
        require=_files("train_regressors"),
    ),
    Stage(
        "fit_controllers",
        _section("controllers"),
        run=_body("controllers", "run"),
        needs=("build_dataset", "train_segments"),
        packages=("editing", "segmodel"),
    ),
    Stage(
        "learn_modes",
        _section("modes"),
        run=_body("modes", "finish"),
        needs=("build_dataset", "train_segments"),
        packages=("fitting", "segmodel", "arap_diff"),
        shards=_body("modes", "shards"),
        run_shard=_body("modes", "run_shard"),
    ),
    Stage(
        "fine_tune",
        _section("fine_tune"),
        run=_body("finetune", "run"),
        together=True,
        needs=("build_dataset", "train_segments", "train_regressors"),
        packages=("segmodel", "fitting", "dataset_builder"),
    ),
    Stage(
        "fit_photos",
        _fit,
        run=_body("fit", "finish"),
        needs=("build_dataset", "train_segments", "learn_modes", "train_regressors", "fit_controllers", "fine_tune"),
        packages=("fitting", "segmodel", "arap_diff", "editing"),
        shards=_body("fit", "shards"),
        run_shard=_body("fit", "run_shard"),
        spares=lambda config: () if config.fit.start == "network" else NETWORK,
    ),
    Stage(
        "compare_rivals",
        _rivals,
        run=_body("rivals", "finish"),
        needs=RIVALS_NEED,
        packages=("segmodel", "fitting", "dataset_builder", "arap_diff", "editing"),
        shards=_body("rivals", "shards"),
        run_shard=_body("rivals", "run_shard"),
        spares=_spared_by_rivals,
    ),
    Stage(
        "compare_settings",
        _cells,
        run=_body("cells", "finish"),
        needs=CELLS_NEED,
        packages=("fitting", "segmodel", "arap_diff", "editing"),
        shards=_body("cells", "shards"),
        run_shard=_body("cells", "run_shard"),
        spares=lambda config: () if config.cells.n_faces else CELLS_NEED,
    ),
    Stage(
        "compare_edits",
        _edits,
        run=_body("edits", "run"),
        needs=(
            "build_dataset",
            "train_segments",
            "train_baselines",
            "fit_controllers",
            "learn_modes",
            "fit_photos",
        ),
        packages=("editing", "segmodel", "arap_diff", "fitting"),
    ),
    Stage(
        "evaluate",
        _evaluate,
        run=_body("evaluate", "run"),
        needs=(
            "build_dataset",
            "transfer_labels",
            "train_segments",
            "learn_modes",
            "train_regressors",
            "fit_controllers",
            "fine_tune",
            "fit_photos",
            "compare_rivals",
        ),
        packages=("fitting", "segmodel", "editing", "dataset_builder"),
        require=_files("evaluate"),
    ),
)

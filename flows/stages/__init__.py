"""The stages of the pipeline and what each depends on; their bodies are imported only when one has to run."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..pipeline import Stage, StageContext
from ..sources import digest_files, list_photos


def _body(module: str, function: str) -> Callable[..., Any]:
    """``flows.stages.<module>.<function>``, imported at the first call: a cached run loads no torch."""

    def call(context: StageContext, *rest: str) -> Any:
        return getattr(importlib.import_module(f"flows.stages.{module}"), function)(context, *rest)

    return call


def _section(name: str, *others: str) -> Callable[[RunConfig], Mapping[str, Any]]:
    return lambda config: {
        "seed": config.seed,
        **{key: getattr(config, key).model_dump(mode="json") for key in (name, *others)},
    }


def _dataset(config: RunConfig) -> Mapping[str, Any]:
    """The section without paths, and the content of the files they name."""
    section = config.dataset
    files: Sequence[Path] = [path for path in (Path(section.face_model),) if path.is_file()]
    if section.images is not None:
        files = [*files, *list_photos(section.images)]
        if section.masks is not None:
            below = [section.masks, *section.masks.rglob("*")]
            files = [*files, *sorted(path for path in below if path.is_file())]
        if section.manifest is not None:
            files = [*files, section.manifest]
    chosen = section.model_dump(mode="json", exclude={"images", "masks", "manifest"})
    return {"seed": config.seed, "dataset": chosen, "content": digest_files(list(files))}


NETWORK = ("train_regressors", "fine_tune")


def _fit(config: RunConfig) -> Mapping[str, Any]:
    """The section, and of the network only what a start from it reads."""
    encoder = {"encoder": config.regressors.encoder} if config.fit.start == "network" else {}
    return {"seed": config.seed, "fit": config.fit.model_dump(mode="json"), **encoder}


STAGES = (
    Stage(
        "build_dataset",
        _dataset,
        run=_body("dataset", "finish"),
        packages=("dataset_builder",),
        shards=_body("dataset", "shards"),
        run_shard=_body("dataset", "run_shard"),
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
        needs=("build_dataset", "transfer_labels"),
        packages=("segmodel", "arap_diff"),
    ),
    Stage(
        "train_regressors",
        _section("regressors"),
        run=_body("regressors", "run"),
        needs=("build_dataset", "train_segments"),
        packages=("segmodel", "dataset_builder"),
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
        needs=("build_dataset", "train_segments", "train_regressors"),
        packages=("segmodel", "fitting"),
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
        "evaluate",
        _section("evaluate", "fit", "regressors"),
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
        ),
        packages=("fitting", "segmodel", "editing"),
    ),
)

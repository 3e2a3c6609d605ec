"""The files and folders that a configuration needs from outside: which setting asks for each, and whether it is there.

What is missing is named before anything is computed; ``neo3df assets -c CONFIG`` lists all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .config import RunConfig
from .errors import UserError
from .settings import DatasetConfig
from .sources import (
    BUILT_IN,
    WEIGHTS,
    asset_source,
    face_model_source,
    manifest_source,
    mask_source,
    other_face_model,
    photo_source,
    weights_source,
)

DETECTORS = ("retinaface_mobilenet0.25", "pfld_ghostone_98", "peppa_slim160_68")
"""Assets that find faces and landmarks in photographs."""


@dataclass(frozen=True)
class NeededFile:
    """One file or folder: the first stage that reads it, the setting that asks for it, and where it is.

    ``problem``: one line on what is missing, empty where ``place`` is found. ``asset``: its name among the assets, if
    it is one of those.
    """

    stage: str
    setting: str
    place: Path | None
    problem: str = ""
    asset: str | None = None


def needed_files(config: RunConfig) -> list[NeededFile]:
    """Everything that a run of ``config`` reads from outside, in the order in which it is read."""
    detectors = DETECTORS if config.dataset.folders else ()
    found = [_asset("build_dataset", "dataset.images", name) for name in detectors]
    return [*_of_settings(config), *found]


def require_files(config: RunConfig, stage: str) -> None:
    """Raise UserError where a file that ``stage`` reads first, and that a setting names or implies, is missing."""
    for needed in _of_settings(config):
        if needed.stage == stage and needed.problem:
            raise UserError(needed.problem)


def _of_settings(config: RunConfig) -> list[NeededFile]:
    dataset, regressors, evaluate = config.dataset, config.regressors, config.evaluate
    data = "build_dataset"
    found = []
    for images, masks in dataset.folders:
        found.append(_found(data, "dataset.images", partial(photo_source, images)))
        found.append(_found(data, "dataset.masks", partial(mask_source, masks)))
    if dataset.folders:
        found.append(_found(data, "dataset.manifest", partial(manifest_source, dataset.manifest)))
    face_model = _found(data, "dataset.face_model", partial(face_model_source, dataset.face_model))
    found.append(replace(face_model, asset="ict_face") if dataset.face_model == "ict" else face_model)
    found += [
        _weights(data, "dataset.parser", dataset.parser, dataset.parser_weights),
        _estimator(dataset),
        _weights("train_regressors", "regressors.encoder", regressors.encoder, regressors.encoder_weights),
        _weights("evaluate", "evaluate.parser", evaluate.parser, evaluate.parser_weights),
    ]
    return [needed for needed in found if needed.place is not None or needed.problem]


def _estimator(dataset: DatasetConfig) -> NeededFile:
    """The estimator's weights, which are of no use with another face model than its own."""
    name = dataset.face_model
    if dataset.estimator == "deep3dmm" and (name == "ict" or name.startswith(BUILT_IN)):
        return NeededFile("build_dataset", "dataset.estimator", None, other_face_model(name))
    return _weights("build_dataset", "dataset.estimator", dataset.estimator, dataset.estimator_weights)


def _weights(stage: str, setting: str, network: str, given: Path | None) -> NeededFile:
    found = _found(stage, setting, partial(weights_source, setting, network, given))
    return replace(found, asset=WEIGHTS.get(network) if given is None else None)


def _asset(stage: str, setting: str, name: str) -> NeededFile:
    return replace(_found(stage, setting, partial(asset_source, setting, name)), asset=name)


def _found(stage: str, setting: str, find: Callable[[], Path | None]) -> NeededFile:
    try:
        return NeededFile(stage, setting, find())
    except UserError as error:
        return NeededFile(stage, setting, None, str(error))

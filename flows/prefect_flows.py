"""The stages as Prefect flows with plain parameters, to be called, served or deployed.

``pipeline("configs/demo.yaml")`` brings every stage up to date, ``fit_photos("configs/demo.yaml",
["fit.iterations=60"])`` that stage and what it needs. Each returns the output folders by stage name, never data.
"""

from collections.abc import Sequence
from pathlib import Path

from . import environment

environment.prepare()

from prefect import Flow, flow  # noqa: E402

from .config import load_config  # noqa: E402
from .pipeline import Pipeline  # noqa: E402
from .prefect_runner import PrefectRunner, TaskRunnerName  # noqa: E402
from .stages import STAGES  # noqa: E402


def bring(
    config: str,
    overrides: Sequence[str],
    only: Sequence[str],
    refresh: Sequence[str],
    runner: TaskRunnerName,
    workers: int,
) -> dict[str, str]:
    """Bring the chosen stages of a configuration file to their finished outputs; the folders by stage name."""
    resolved = load_config(Path(config), overrides)
    outcomes = Pipeline(STAGES, resolved, only=only, refresh=refresh).execute(PrefectRunner(runner, workers))
    return {outcome.name: str(outcome.folder) for outcome in outcomes}


def stage_flow(name: str) -> Flow:
    """The Prefect flow that makes one stage, and first whatever it needs that is not finished."""

    @flow(name=name, persist_result=False)
    def bring_stage(
        config: str,
        overrides: list[str] | None = None,
        refresh: bool = False,
        runner: TaskRunnerName = "thread",
        workers: int = 2,
    ) -> dict[str, str]:
        return bring(config, overrides or (), [name], [name] if refresh else (), runner, workers)

    return bring_stage


@flow(name="pipeline", persist_result=False)
def pipeline(
    config: str,
    overrides: list[str] | None = None,
    refresh: list[str] | None = None,
    runner: TaskRunnerName = "thread",
    workers: int = 2,
) -> dict[str, str]:
    """Every stage of a configuration."""
    return bring(config, overrides or (), (), refresh or (), runner, workers)


build_dataset = stage_flow("build_dataset")
transfer_labels = stage_flow("transfer_labels")
train_segments = stage_flow("train_segments")
train_baselines = stage_flow("train_baselines")
train_regressors = stage_flow("train_regressors")
fit_controllers = stage_flow("fit_controllers")
learn_modes = stage_flow("learn_modes")
fine_tune = stage_flow("fine_tune")
fit_photos = stage_flow("fit_photos")
compare_rivals = stage_flow("compare_rivals")
compare_settings = stage_flow("compare_settings")
compare_edits = stage_flow("compare_edits")
evaluate = stage_flow("evaluate")

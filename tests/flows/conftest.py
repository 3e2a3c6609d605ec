import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TINY = {
    "dataset": {"face_model": "synthetic-3k", "n_photos": 16, "validation_share": 0.3, "shard_size": 8},
    "segments": {"n_shapes": 400, "epochs": 1},
    "baselines": {"models": ["global-pca", "part-pca"]},
    "regressors": {"encoder": "small", "encoder_epochs": 2, "epochs": 2},
    "controllers": {"n_faces": 200},
    "modes": {"n_modes": 2, "global_modes": True, "iterations": 3, "free_form_iterations": 3, "shard_size": 6},
    "fine_tune": {"epochs": 1},
    "fit": {"iterations": 5, "shard_size": 3, "batch_size": 2},
    "edits": {"n_measured": 200, "n_shown": 1},
    "evaluate": {"n_examples": 2},
}


@pytest.fixture(scope="session")
def fake():
    """The module ``fake_pipeline.py``."""
    path = Path(__file__).with_name("fake_pipeline.py")
    spec = importlib.util.spec_from_file_location("fake_pipeline", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_pipeline"] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class TinyRun:
    """A finished run of the real stages."""

    folder: Path
    values: dict
    outcomes: list

    def output(self, stage):
        """Output folder of a stage."""
        return next(outcome.folder for outcome in self.outcomes if outcome.name == stage)

    def pipeline(self, run_dir=None, sections=None, **selection):
        """The same pipeline again, on the run's folder or a copy of it, with other values in some ``sections``."""
        from flows.config import parse_config
        from flows.pipeline import Pipeline
        from flows.stages import STAGES

        changed = {name: {**self.values.get(name, {}), **values} for name, values in (sections or {}).items()}
        values = {**self.values, **changed, "run_dir": run_dir or self.folder}
        return Pipeline(STAGES, parse_config(values), **selection)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Every real stage on 16 synthetic photographs of a small face, without Prefect. Read it, do not change it."""
    from flows.pipeline import PlainRunner

    folder = tmp_path_factory.mktemp("tiny") / "run"
    run = TinyRun(folder, TINY, [])
    run.outcomes.extend(run.pipeline().execute(PlainRunner))
    return run

"""prefect.yaml: every deployment names a flow that can be loaded, with the parameters that flow takes."""

from pathlib import Path

import pytest
import yaml

from flows import environment, prefect_flows
from flows.errors import UserError
from flows.settings import RunConfig
from flows.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = {deployment["entrypoint"]: deployment for deployment in SETTINGS["deployments"]}


@pytest.fixture
def tiny_config(tiny_run, tmp_path):
    """The configuration file of the finished tiny run."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**tiny_run.values, "run_dir": str(tiny_run.folder)}))
    return str(path)


@pytest.mark.parametrize("entrypoint", DEPLOYMENTS)
def test_an_entrypoint_loads_as_a_flow_that_takes_the_parameters(entrypoint):
    from prefect.flows import Flow, load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert isinstance(flow, Flow)
    assert flow.name == entrypoint.rpartition(".")[2]
    parameters = DEPLOYMENTS[entrypoint]["parameters"]
    assert set(parameters) == set(flow.parameters.properties)
    assert flow.validate_parameters(parameters) == parameters
    assert (ROOT / parameters["config"]).is_file()


def test_the_pipeline_and_every_stage_are_deployed_to_one_pool():
    assert [entrypoint.rpartition(".")[2] for entrypoint in DEPLOYMENTS] == ["pipeline", *(s.name for s in STAGES)]
    assert len(DEPLOYMENTS) == len(SETTINGS["deployments"])
    assert {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS.values()} == {"neo3df"}
    assert all(deployment["description"].endswith(".") for deployment in DEPLOYMENTS.values())


def test_a_job_speaks_where_a_terminal_is_quiet():
    for deployment in DEPLOYMENTS.values():
        env = deployment["work_pool"]["job_variables"]["env"]
        assert set(env) <= set(environment.QUIET_PREFECT)
        assert all(env[name] != environment.QUIET_PREFECT[name] and isinstance(env[name], str) for name in env)


def test_the_pipeline_returns_the_folders_of_a_finished_run(tiny_run, tiny_config):
    found = prefect_flows.pipeline.fn(tiny_config)
    assert found == {outcome.name: str(outcome.folder) for outcome in tiny_run.outcomes}


def test_a_stage_returns_what_it_needs_and_nothing_else(tiny_run, tiny_config):
    found = prefect_flows.fit_controllers.fn(tiny_config, [f"evaluate.n_examples={RunConfig().evaluate.n_examples}"])
    assert set(found) == {"build_dataset", "transfer_labels", "train_segments", "fit_controllers"}
    assert found["fit_controllers"] == str(tiny_run.output("fit_controllers"))


def test_mistakes_in_parameters_are_named(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"--set: unknown key 'fit\.iteration'; did you mean 'iterations'\?"):
        prefect_flows.fit_photos.fn(tiny_config, ["fit.iteration=3"])
    with pytest.raises(UserError, match="there is no stage 'fit'; stages are build_dataset, "):
        prefect_flows.pipeline.fn(tiny_config, refresh=["fit"])
    with pytest.raises(UserError, match=r"there is no configuration file .*none\.yaml"):
        prefect_flows.pipeline.fn(str(tmp_path / "none.yaml"))

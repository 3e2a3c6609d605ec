import json
import os
import signal
import subprocess
import sys
import time
from urllib.request import Request, urlopen

import pytest

from flows import environment
from flows.errors import UserError
from flows.prefect_runner import PrefectRunner

HOLD_SERVER = """
import time
from flows.prefect_server import temporary_server
with temporary_server() as url:
    print(url, flush=True)
    time.sleep(600)
"""


def answers(url):
    try:
        with urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A temporary Prefect server, held by a process of its own: the pair of its address and that process."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        environment.prepare()
        with subprocess.Popen([sys.executable, "-c", HOLD_SERVER], stdout=subprocess.PIPE, text=True) as holder:
            url = holder.stdout.readline().strip()
            patch.setenv("PREFECT_API_URL", url)
            yield url, holder
            holder.kill()


@pytest.fixture
def prefect(server):
    """Prefect's settings, pointing at the server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: server[0], PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def recorded_flows(url):
    """Name of the flow of every flow run that the server knows, sorted."""
    with urlopen(
        Request(f"{url}/flow_runs/filter", b"{}", {"Content-Type": "application/json"}), timeout=30
    ) as response:
        runs = json.load(response)
    return sorted(read_json(f"{url}/flows/{run['flow_id']}")["name"] for run in runs)


def read_json(url):
    with urlopen(url, timeout=30) as response:
        return json.load(response)


def test_stages_become_flows_inside_one_pipeline(fake, server, prefect, tmp_path):
    outcomes = fake.pipeline(tmp_path).execute(PrefectRunner(workers=2))
    assert [outcome.status for outcome in outcomes] == ["ran"] * 3
    assert len(fake.bodies(tmp_path)) == 7
    assert recorded_flows(server[0]) == ["build_dataset", "pipeline", "train_segments", "transfer_labels"]
    plain = fake.pipeline(tmp_path / "plain").execute()
    assert [outcome.key for outcome in plain] == [outcome.key for outcome in outcomes]


def test_a_shard_that_fails_is_tried_again(fake, prefect, tmp_path, capsys):
    (tmp_path / "fail").write_text("disk")
    outcomes = fake.pipeline(tmp_path, only=["build_dataset"]).execute(PrefectRunner(workers=1))
    assert outcomes[0].status == "ran"
    assert fake.bodies(tmp_path).count("shard-00000") == 2
    assert "build_dataset: shard 00000 failed: the disk hiccuped" in capsys.readouterr().err


def test_a_mistake_of_the_user_is_not_tried_again_and_comes_through(fake, prefect, tmp_path):
    (tmp_path / "fail").write_text("user")
    with pytest.raises(UserError, match="the photo is upside down"):
        fake.pipeline(tmp_path, only=["build_dataset"]).execute(PrefectRunner(workers=1))
    assert fake.bodies(tmp_path) == [f"shard-{i:05d}" for i in range(4)]


def test_the_server_ends_with_the_command_even_when_killed(server):
    url, holder = server
    assert answers(url)
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not answers(url)

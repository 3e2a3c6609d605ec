import threading
import time

import pytest

from editing.app.worker import Worker


@pytest.fixture
def log():
    return []


@pytest.fixture
def worker(log):
    worker = Worker(lambda: log.append("show"), lambda error: log.append(str(error)))
    yield worker
    worker.close()


def hold(worker, log):
    """Keep the worker busy until the returned event is set."""
    started, release = threading.Event(), threading.Event()

    def job():
        started.set()
        release.wait(10)
        log.append("held")

    worker.submit("hold", job)
    assert started.wait(10)
    return release


def test_while_a_rebuild_runs_only_the_newest_value_of_a_slider_waits(worker, log):
    release = hold(worker, log)
    for value in range(50):
        worker.submit("slide nose.width", lambda value=value: log.append(value))
    release.set()
    assert worker.wait()
    assert log == ["held", "show", 49, "show"]


def test_a_job_in_between_keeps_what_came_before_it(worker, log):
    release = hold(worker, log)
    for key, value in [("slide", 1), ("slide", 2), ("undo", "undo"), ("slide", 3), ("slide", 4)]:
        worker.submit(key, lambda value=value: log.append(value))
    release.set()
    assert worker.wait()
    assert log == ["held", "show", 2, "undo", 4, "show"]


def test_a_number_being_typed_is_taken_once_it_rests(worker, log):
    for typed in (3, 34):
        worker.submit("exact", lambda typed=typed: log.append(typed), delay=0.2)
        time.sleep(0.05)
    assert log == []
    assert worker.wait()
    assert log == [34, "show"]


def test_a_number_being_typed_is_taken_at_once_when_something_follows(worker, log):
    worker.submit("exact", lambda: log.append(34), delay=60)
    worker.submit("undo", lambda: log.append("undo"))
    assert worker.wait()
    assert log == [34, "undo", "show"]


def test_mistakes_are_reported_and_the_next_job_is_done(worker, log):
    def refused():
        raise ValueError("nose.width cannot reach 90 mm")

    worker.submit("exact", refused)
    assert worker.wait()
    worker.submit("set", lambda: log.append("set"))
    assert worker.wait()
    assert log == ["nose.width cannot reach 90 mm", "show", "set", "show"]


def test_a_closed_worker_forgets_what_waits_and_ends(worker, log):
    release = hold(worker, log)
    worker.submit("set", lambda: log.append("set"))
    worker.close()
    release.set()
    worker._thread.join(10)
    assert not worker._thread.is_alive()
    assert "set" not in log

"""build_dataset killed at random moments: what comes out in the end, and what was done twice."""

import importlib.util
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import store
from flows.tables import read_table

N_PHOTOS, SHARD, KILLS = 36, 3, 3


@pytest.fixture(scope="module")
def fake():
    path = Path(__file__).with_name("fake_photos.py")
    spec = importlib.util.spec_from_file_location("fake_photos", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images(fake, tmp_path):
    folder = tmp_path / "images"
    for i in range(N_PHOTOS - 3):
        fake.write_photo(folder / f"{i}.png", i)
    (folder / "10.jpg").write_bytes(b"no picture")
    shutil.copy(folder / "1.png", folder / "33.png")
    (folder / "notes.txt").write_text("not a photo by its name")
    return folder


def start(fake, run_dir, images, seconds):
    run_dir.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, fake.__file__, str(run_dir), str(images), str(seconds)])


def begun(run_dir):
    """Shards that were begun since the last call, in order."""
    log = run_dir / "shards.log"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def finished(run_dir):
    return {path.name for path in run_dir.glob(f".work-*/{store.DONE}/*") if path.name.isdigit()}


def test_killed_at_random_moments_the_dataset_is_the_same_and_no_shard_is_made_twice(fake, images, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(fake, whole, images, 0).wait(timeout=120) == 0
    draw = random.Random()
    kept, made = set(), []
    for _ in range(KILLS):
        process = start(fake, broken, images, 0.02)
        while not (broken / "shards.log").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.wait(timeout=60)
        made += begun(broken)
        assert kept <= finished(broken) or not finished(broken)
        kept = finished(broken)
    assert start(fake, broken, images, 0).wait(timeout=120) == 0
    made += begun(broken)
    assert set(made) == {f"{i:05d}" for i in range(N_PHOTOS // SHARD)}
    assert len(made) <= N_PHOTOS // SHARD + KILLS, "a kill costs the shard that was being made"
    folders = [store.find_output(run_dir, "build_dataset") for run_dir in (whole, broken)]
    manifests = [store.load_manifest(folder) for folder in folders]
    assert manifests[0].files == manifests[1].files
    assert [store.verify(folder) for folder in folders] == [[], []]
    faces = read_table(sorted(folders[1].glob("faces-*.parquet")), "faces")
    rejected = read_table(sorted(folders[1].glob("rejected-*.parquet")), "rejected")
    assert len(faces["face_id"]) + len(rejected["code"]) == N_PHOTOS
    assert sorted(rejected["code"]) == ["duplicate", "not_a_photo", "not_a_photo", "unreadable"]

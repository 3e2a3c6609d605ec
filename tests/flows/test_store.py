import json
import os
import platform

import pytest

from flows import store
from flows.errors import UserError
from flows.sealed import write_json_sealed


def commit(run_dir, content=b"abc", key="k1", **values):
    work = store.work_folder(run_dir, "s", key)
    work.mkdir(parents=True)
    (work / "a.bin").write_bytes(content)
    defaults = {"config": {"lr": 0.1}, "upstream": {}, "packages": (), "seconds": 1.5}
    return store.commit(run_dir, "s", key, **(defaults | values))


def test_digest_ignores_key_order_but_no_value():
    assert store.digest({"a": 1, "b": [1, 2]}) == store.digest({"b": [1, 2], "a": 1})
    assert store.digest({"a": 1}) != store.digest({"a": 1.5})
    assert store.digest([1, 2]) != store.digest([2, 1])
    with pytest.raises(ValueError, match="cannot hash a stage configuration"):
        store.digest({"a": object()})


def test_every_ingredient_changes_the_key(tmp_path):
    first, other = commit(tmp_path / "1"), commit(tmp_path / "2", b"xyz")
    key = store.stage_key("train", {"lr": 1}, {"s": first}, ("segmodel",))
    assert key == store.stage_key("train", {"lr": 1}, {"s": first}, ("segmodel",))
    assert key != store.stage_key("other", {"lr": 1}, {"s": first}, ("segmodel",))
    assert key != store.stage_key("train", {"lr": 2}, {"s": first}, ("segmodel",))
    assert key != store.stage_key("train", {"lr": 1}, {"s": other}, ("segmodel",))
    assert key != store.stage_key("train", {"lr": 1}, {"s": first}, ("segmodel", "editing"))


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ValueError, match="package 'no_such_thing' is not installed"):
        store.stage_key("s", {}, {}, ("no_such_thing",))


def test_commit_writes_a_manifest_that_loads_back(tmp_path):
    manifest = commit(tmp_path, packages=("segmodel",))
    folder = store.stage_folder(tmp_path, "s", "k1")
    assert store.load_manifest(folder) == manifest
    values = json.loads((folder / "manifest.json").read_text())
    assert values["config"] == {"lr": 0.1}
    assert values["files"][0]["name"] == "a.bin"
    assert values["files"][0]["bytes"] == 3
    assert set(values["packages"]) == {"segmodel"}
    assert values["machine"].startswith(f"{platform.system()} {platform.machine()}, ")
    assert f", {os.cpu_count()} cores" in values["machine"]
    assert platform.node() not in values["machine"]
    assert not store.work_folder(tmp_path, "s", "k1").exists()


def test_a_manifest_written_before_machines_were_recorded_still_loads(tmp_path):
    commit(tmp_path)
    folder = store.stage_folder(tmp_path, "s", "k1")
    values = json.loads((folder / "manifest.json").read_text())
    del values["machine"], values["sha256"]
    write_json_sealed(folder / "manifest.json", values)
    older = store.load_manifest(folder)
    assert older is not None
    assert older.machine == ""


def test_missing_resized_or_unreadable_outputs_count_as_absent(tmp_path):
    commit(tmp_path)
    folder = store.stage_folder(tmp_path, "s", "k1")
    (folder / "a.bin").write_bytes(b"abcd")
    assert store.load_manifest(folder) is None
    (folder / "a.bin").unlink()
    assert store.load_manifest(folder) is None
    (folder / "manifest.json").write_text('{"stage": "s"')
    assert store.load_manifest(folder) is None
    assert store.load_manifest(tmp_path / "nothing") is None


def test_verify_finds_a_flipped_byte_of_equal_size(tmp_path):
    commit(tmp_path)
    folder = store.stage_folder(tmp_path, "s", "k1")
    assert store.verify(folder) == []
    (folder / "a.bin").write_bytes(b"abd")
    assert store.verify(folder) == ["a.bin"]
    with pytest.raises(UserError, match="is not a finished stage"):
        store.verify(tmp_path)


def test_equal_output_is_kept_and_other_output_replaces(tmp_path):
    first = commit(tmp_path)
    assert commit(tmp_path, seconds=9.0) == first
    second = commit(tmp_path, b"xyz")
    assert second.content != first.content
    assert (store.stage_folder(tmp_path, "s", "k1") / "a.bin").read_bytes() == b"xyz"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s-k1"]


def test_equal_output_repairs_a_damaged_one(tmp_path):
    commit(tmp_path)
    (store.stage_folder(tmp_path, "s", "k1") / "a.bin").write_bytes(b"abd")
    commit(tmp_path)
    assert store.verify(store.stage_folder(tmp_path, "s", "k1")) == []


def test_a_commit_cut_off_before_its_rename_is_completed(tmp_path):
    manifest = commit(tmp_path)
    folder, work = store.stage_folder(tmp_path, "s", "k1"), store.work_folder(tmp_path, "s", "k1")
    folder.rename(work)
    assert store.adopt(tmp_path, "s", "k1") == manifest
    assert store.load_manifest(folder) == manifest
    assert store.adopt(tmp_path, "s", "k1") is None


def test_leftovers_of_a_killed_write_do_not_enter_the_output(tmp_path):
    work = store.work_folder(tmp_path, "s", "k1")
    work.mkdir(parents=True)
    (work / ".a.bin.x1.tmp").write_bytes(b"half")
    (work / "a.bin").write_bytes(b"abc")
    manifest = store.commit(tmp_path, "s", "k1", config={}, upstream={}, packages=(), seconds=0)
    assert [entry.name for entry in manifest.files] == ["a.bin"]


def test_the_run_record_points_at_the_newest_outputs(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        store.load_run(tmp_path)
    for content, key in ((b"abc", "k1"), (b"xyz", "k2")):
        commit(tmp_path, content, key)
        store.record_stage(tmp_path, "s", key, {"seed": 1})
    assert store.latest_outputs(tmp_path) == {"s": store.stage_folder(tmp_path, "s", "k2")}
    assert store.timings(tmp_path) == [("s", 1.5, 0)]
    assert store.load_run(tmp_path).config == {"seed": 1}
    with pytest.raises(UserError, match="has no output of stage t"):
        store.find_output(tmp_path, "t")
    (store.stage_folder(tmp_path, "s", "k2") / "a.bin").unlink()
    with pytest.raises(UserError, match="is incomplete"):
        store.find_output(tmp_path, "s")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        store.load_run(tmp_path)

import pytest
from typer.testing import CliRunner

from dataset_builder import ASSETS
from flows import cli
from flows.config import load_config
from flows.errors import UserError
from flows.presets import preset
from flows.settings import RunConfig


@pytest.mark.parametrize("name", ["demo", "ict"])
def test_the_presets_are_found_anywhere_and_every_key_of_them_is_valid(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path / "assets"))
    config = load_config(preset(name))
    assert config.run_dir.parts == ("runs", name)
    assert config.fit == RunConfig().fit, "a preset fits photos as recommended"
    if name == "ict":
        assert config.dataset.images == tmp_path / "assets" / "celebamask" / "images"


def test_the_demo_needs_no_asset(monkeypatch):
    monkeypatch.delenv("NEO3DF_ASSETS", raising=False)
    config = load_config(preset("demo"))
    assert config.dataset.images is None
    assert config.dataset.face_model.startswith("synthetic")
    assert config.regressors.encoder == "small"


def test_a_preset_below_the_working_folder_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("seed: 4\n")
    assert load_config(preset("demo")).seed == 4
    with pytest.raises(UserError, match=r"there is no preset other; looked for .*other\.yaml"):
        preset("other")


def test_assets_are_listed_with_place_licence_and_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "weights").mkdir()
    asset = ASSETS["mobilefacenet_112"]
    (tmp_path / asset.file).write_bytes(b"")
    done = CliRunner().invoke(cli.app, ["assets"])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    for found in ASSETS.values():
        assert found.name in words
        assert (found.sha256 or "not published")[:12] in words
    assert asset.file in words
    assert str(tmp_path / "cache" / "neo3df") in done.output.replace("\n", "")

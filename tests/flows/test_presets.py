import sys

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


@pytest.fixture
def paper_sources(tmp_path, monkeypatch):
    """Folders with the names and layout of CelebAMask-HQ and FFHQ, and the variables that point there."""
    for folder in ("celeb/CelebA-HQ-img", "celeb/CelebAMask-HQ-mask-anno/0", "ffhq"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("celeb/CelebA-HQ-img/0.jpg", "celeb/CelebAMask-HQ-mask-anno/0/00000_nose.png", "ffhq/00000.png"):
        (tmp_path / file).write_bytes(file.encode())
    monkeypatch.setenv("NEO3DF_CELEBAMASK_HQ", str(tmp_path / "celeb"))
    monkeypatch.setenv("NEO3DF_FFHQ", str(tmp_path / "ffhq"))
    return tmp_path


def test_the_paper_preset_has_the_numbers_of_the_paper(paper_sources):
    config = load_config(preset("paper"))
    assert config.dataset.face_model == "bfm"
    assert config.dataset.folders == (
        (paper_sources / "celeb" / "CelebA-HQ-img", paper_sources / "celeb" / "CelebAMask-HQ-mask-anno"),
        (paper_sources / "ffhq", None),
    )
    segments = config.segments
    assert (segments.rest_dim, segments.part_dim, segments.init, segments.n_shapes) == (30, 10, "random", 95000)
    assert (segments.lambda_kl, segments.lambda_smooth, segments.radius_mm, segments.n_solves) == (0.01, 1, 30, 3)
    assert segments.epochs == 30
    assert config.regressors.encoder == "facenet"
    for section in (segments, config.regressors, config.fine_tune):
        assert (section.batch, section.lr, section.lambda_kl) == (16, 1e-4, 0.01)
    assert set(config.baselines.models) == {"global-pca", "global-vae", "ld-vae", "part-pca"}
    fit = config.fit
    assert (fit.iterations, fit.learning_rate, fit.start) == (20, 1e-3, "network")
    assert (fit.variables, fit.offsets) == ("controls", "yz")
    assert (fit.loss, fit.blend, fit.prior, fit.modes) == ("frobenius", True, 0, False)
    assert config.run_dir.parts == ("runs", "paper")


def test_a_dry_run_of_the_paper_preset_says_what_would_run(paper_sources, monkeypatch):
    monkeypatch.chdir(paper_sources)
    done = CliRunner().invoke(cli.app, ["run", "-c", str(preset("paper")), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "would run" in done.output


@pytest.mark.parametrize("variable", ["NEO3DF_CELEBAMASK_HQ", "NEO3DF_FFHQ"])
def test_a_dry_run_names_the_variable_that_is_not_set(variable, paper_sources, monkeypatch, capsys):
    monkeypatch.delenv(variable)
    assert f"expected a path with the environment variable {variable} set" in _refusal(monkeypatch, capsys)


def test_a_dry_run_names_the_folder_that_is_not_there(paper_sources, monkeypatch, capsys):
    monkeypatch.setenv("NEO3DF_FFHQ", str(paper_sources / "nowhere"))
    assert _refusal(monkeypatch, capsys) == f"neo3df: no photographs: {paper_sources / 'nowhere'} does not exist"


def _refusal(monkeypatch, capsys):
    """The one line in which a dry run of the paper's preset ends."""
    monkeypatch.setattr(sys, "argv", ["neo3df", "run", "-c", str(preset("paper")), "--dry-run"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


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

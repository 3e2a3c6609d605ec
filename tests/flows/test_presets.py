import os
import re
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


PAPER_FILES = (
    "celeb/CelebA-HQ-img/0.jpg",
    "celeb/CelebAMask-HQ-mask-anno/0/00000_nose.png",
    "ffhq/00000/00000.png",
    "assets/BFM/BFM_model_front.mat",
    "assets/weights/deep3dmm_epoch_20.pth",
    "facenet.pt",
)


@pytest.fixture
def paper_sources(tmp_path, monkeypatch):
    """Files of the names that the paper's preset looks for, and the variables that point there."""
    for file in PAPER_FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(file.encode())
    monkeypatch.setenv("NEO3DF_CELEBAMASK_HQ", str(tmp_path / "celeb"))
    monkeypatch.setenv("NEO3DF_FFHQ", str(tmp_path / "ffhq"))
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_paper_preset_has_the_numbers_of_the_paper(paper_sources):
    config = load_config(preset("paper"))
    assert (config.dataset.face_model, config.dataset.estimator) == ("bfm", "deep3dmm")
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
    done = CliRunner().invoke(cli.app, _dry_run())
    assert done.exit_code == 0, done.output
    assert "would run" in done.output


@pytest.mark.parametrize("variable", ["NEO3DF_CELEBAMASK_HQ", "NEO3DF_FFHQ"])
def test_a_dry_run_names_the_variable_that_is_not_set(variable, paper_sources, monkeypatch, capsys):
    monkeypatch.delenv(variable)
    assert f"expected a path with the environment variable {variable} set" in _refusal(monkeypatch, capsys, "--dry-run")


def test_a_dry_run_names_the_folder_that_is_not_there(paper_sources, monkeypatch, capsys):
    monkeypatch.setenv("NEO3DF_FFHQ", str(paper_sources / "nowhere"))
    assert (
        _refusal(monkeypatch, capsys, "--dry-run")
        == f"neo3df: no photographs: {paper_sources / 'nowhere'} does not exist"
    )


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("celeb/CelebAMask-HQ-mask-anno", r"dataset\.masks: there is no file or folder .*CelebAMask-HQ-mask-anno"),
        ("assets/BFM", r"dataset\.face_model: load_face_model\('bfm'\) needs BFM_model_front\.mat, or 01_Morph.* put "),
        (
            "assets/weights/deep3dmm_epoch_20.pth",
            r"dataset\.estimator: Deep3DMM needs weights/deep3dmm_epoch_20\.pth .*Deep3DFaceRecon.*: put it at",
        ),
        ("facenet.pt", r"regressors\.encoder_weights: there is no file .*facenet\.pt"),
    ],
)
def test_a_dry_run_and_a_run_name_the_file_that_is_missing(file, line, paper_sources, monkeypatch, capsys):
    (paper_sources / file).rename(paper_sources / "elsewhere")
    for dry in ("--dry-run",), ():
        assert re.fullmatch(f"neo3df: {line}.*", _refusal(monkeypatch, capsys, *dry))
        assert not list(paper_sources.rglob("*.parquet"))


def test_encoder_and_parser_weights_that_are_no_asset_yet_are_named_first(paper_sources, monkeypatch, capsys):
    for setting, line in (
        ("regressors.encoder_weights=null", "regressors.encoder: load_encoder('facenet') needs weights/20180402-"),
        ("regressors={encoder: arcface}", "regressors.encoder: load_encoder('arcface') needs weights/recognition_"),
        ("dataset.parser=bisenet", "dataset.parser: load_parser('bisenet') needs weights/parsing_bisenet.pth"),
        ("dataset.parser=parsenet", "dataset.parser: load_parser('parsenet') needs weights/parsing_parsenet.pth"),
        ("evaluate.parser=parsenet", "evaluate.parser: load_parser('parsenet') needs weights/parsing_parsenet.pth"),
    ):
        for dry in ("--dry-run",), ():
            assert _refusal(monkeypatch, capsys, "--set", setting, *dry).startswith(f"neo3df: {line}")


@pytest.mark.parametrize("name", ["ict", "synthetic", "synthetic-3k"])
def test_deep3dmm_with_another_face_model_is_one_line(name, paper_sources, monkeypatch, capsys):
    for module in ("flows.needed_files", "flows.stages"):
        monkeypatch.setattr(f"{module}.face_model_source", lambda name: None)
    assert _refusal(monkeypatch, capsys, "--set", f"dataset.face_model={name}", "--dry-run") == (
        f"neo3df: dataset.estimator: deep3dmm gives coefficients of BFM's front crop, not of {name}; "
        "set dataset.face_model=bfm"
    )


def test_what_a_configuration_needs_is_listed(paper_sources, monkeypatch):
    monkeypatch.chdir(paper_sources)
    words = _listed(preset("paper"), status=1)
    for found in ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "ffhq", "BFM/BFM_model_front.mat"):
        assert f"found: {paper_sources}" in words
        assert found in words
    assert "dataset.estimator: deep3dmm found: " in words
    for name in ("facenet_vggface2", "retinaface_mobilenet0.25", "pfld_ghostone_98", "peppa_slim160_68"):
        assert f"{name} missing: put {ASSETS[name].file} into an asset folder" in words
        assert ASSETS[name].source in words
    assert "regressors.encoder: facenet_vggface2 missing: put" in words
    assert "arcface" not in words
    assert "4 of 9 missing" in words

    wrong = paper_sources / "assets" / ASSETS["facenet_vggface2"].file
    wrong.write_bytes(b"another network")
    assert "is not that of asset 'facenet_vggface2'" in _listed(preset("paper"), status=1)


def test_what_lies_below_a_variable_that_is_not_set_is_listed_as_missing(paper_sources, monkeypatch):
    monkeypatch.delenv("NEO3DF_FFHQ")
    words = _listed(preset("paper"), status=1)
    assert (
        "missing: no photographs: ${NEO3DF_FFHQ} does not exist; set the environment variable NEO3DF_FFHQ dataset."
        in words
    )
    assert "5 of 9 missing" in words
    assert "NEO3DF_FFHQ" not in os.environ


def test_a_configuration_that_needs_nothing_is_status_zero():
    assert _listed(preset("demo"), status=0) == "nothing is needed that is not built in"


def test_what_is_needed_and_may_be_fetched_is_fetched(paper_sources, monkeypatch):
    def fetch(name):
        fetched.append(name)
        path = paper_sources / "assets" / ASSETS[name].file
        path.write_bytes(b"")
        return path

    fetched = []
    monkeypatch.setattr("flows.assets_table.fetch_asset", fetch)
    words = _listed(preset("paper"), "--fetch", status=1)
    assert fetched == ["facenet_vggface2", "pfld_ghostone_98", "peppa_slim160_68"]
    assert "1 of 9 missing" in words


def _listed(config, *options, status):
    """The words that ``neo3df assets -c`` prints."""
    done = CliRunner().invoke(cli.app, ["assets", "-c", str(config), *options])
    assert done.exit_code == status, done.output
    return " ".join(done.output.split())


def _dry_run(*options):
    return ["run", "-c", str(preset("paper")), "--set", "regressors.encoder_weights=facenet.pt", "--dry-run", *options]


def _refusal(monkeypatch, capsys, *options):
    """The one line in which a run of the paper's preset ends; it writes nothing."""
    given = ["--set", f"regressors.encoder_weights={os.environ['NEO3DF_ASSETS']}/../facenet.pt"]
    monkeypatch.setattr(sys, "argv", ["neo3df", "run", "-c", str(preset("paper")), *given, *options])
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

from pathlib import Path
from typing import Literal

import pytest
from pydantic import PositiveInt

from flows.config import RunConfig, Section, load_config, parse_config
from flows.errors import UserError


class Fit(Section):
    iterations: PositiveInt = 20
    learning_rate: float = 0.1
    start: Literal["truth", "network"] = "network"


class Small(Section):
    seed: int = 0
    photos: Path | None = None
    fit_photos: Fit = Fit()


def parse(values, overrides=()):
    return parse_config(values, overrides, "small.yaml", Small)


def test_overrides_win_over_the_file_and_defaults_fill_the_rest():
    config = parse({"seed": 3, "fit_photos": {"iterations": 5}}, ["fit_photos.iterations=60", "fit_photos.start=truth"])
    assert config == Small(seed=3, fit_photos=Fit(iterations=60, start="truth"))


def test_an_exponent_without_a_point_is_a_number():
    assert parse({}, ["fit_photos.learning_rate=1e-4"]).fit_photos.learning_rate == 1e-4


def test_parsing_does_not_change_what_it_was_given():
    values = {"fit_photos": {"iterations": 5}}
    parse(values, ["fit_photos.iterations=6"])
    assert values == {"fit_photos": {"iterations": 5}}


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ({"sead": 1}, [], "small.yaml: unknown key 'sead'; did you mean 'seed'?"),
        ({"fit_photos": {"iteratoins": 1}}, [], "unknown key 'fit_photos.iteratoins'; did you mean 'iterations'?"),
        ({"zzz": 1}, [], "unknown key 'zzz'; valid names are seed, photos, fit_photos"),
        ({}, ["fit_photo.iterations=3"], "--set: unknown key 'fit_photo'; did you mean 'fit_photos'?"),
        (
            {"fit_photos": {"iterations": "many"}},
            [],
            "small.yaml: fit_photos.iterations is 'many', expected a valid int",
        ),
        ({}, ["fit_photos.iterations=0"], "--set: fit_photos.iterations is 0, expected greater than 0"),
        ({}, ["fit_photos.start=guess"], "--set: fit_photos.start is 'guess', expected 'truth' or 'network'"),
        ({"fit_photos": 3}, [], "fit_photos is 3, expected a section of keys"),
        ({}, ["fit_photos"], "--set 'fit_photos' is not of the form section.key=value"),
        ({}, ["seed=["], "--set seed: '[' is not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_naming_key_source_and_remedy(values, overrides, message):
    with pytest.raises(UserError) as caught:
        parse(values, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "run.yaml"
    with pytest.raises(UserError, match=r"there is no configuration file .*run\.yaml"):
        load_config(path)
    path.write_text("fit: [")
    with pytest.raises(UserError, match=r"run\.yaml is not valid YAML") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    path.write_text("- 1")
    with pytest.raises(UserError, match="must hold sections with keys, found list"):
        load_config(path)


def test_an_empty_file_is_all_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("# nothing\n")
    assert load_config(path) == RunConfig()
    assert load_config(path, ["seed=7", f"run_dir={tmp_path}"]) == RunConfig(seed=7, run_dir=tmp_path)


def test_the_resolved_configuration_reads_back(tmp_path):
    config = RunConfig(seed=5)
    assert parse_config(config.model_dump(mode="json")) == config


def test_every_section_is_documented_and_checked():
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            assert field.annotation.__doc__, name
            with pytest.raises(UserError, match=f"unknown key '{name}.no_such_key'"):
                parse_config({name: {"no_such_key": 1}})

"""The configuration of a run: one section per stage, read from YAML, every key checked.

Defaults are the recommended settings of the method. A typing mistake costs one line that names the key, where it came
from and the nearest valid name.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from .errors import UserError
from .settings import RunConfig, Section

__all__ = ["RunConfig", "Section", "load_config", "parse_config"]


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply ``section.key=value`` overrides (values in YAML).

    Raises UserError, in one line, for a missing or unreadable file, an unknown key or a value of the wrong type.
    """
    return parse_config(_read_yaml(path), overrides, str(path))


def parse_config(
    values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "configuration", model: type = RunConfig
) -> Any:
    """Check a nested mapping, with overrides, against ``model``; ``source`` names it in error messages."""
    merged = _copy(values)
    overridden = [_override(merged, text) for text in overrides]
    try:
        return model.model_validate(merged)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise UserError(_one_line(error, model, source, overridden)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no configuration file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold sections with keys, found {type(values).__name__}")
    return values


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _override(values: dict[str, Any], text: str) -> str:
    """Put ``section.key=value`` into ``values`` and return the key."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text!r} is not of the form section.key=value")
    *parents, last = key.split(".")
    level = values
    for parent in parents:
        below = level.get(parent)
        if not isinstance(below, dict):
            below = level[parent] = {}
        level = below
    try:
        level[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {key}: {value!r} is not valid YAML") from error
    return key


def _one_line(error: ValidationError, model: type, source: str, overridden: Sequence[str]) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(step) for step in first["loc"])
    from_option = any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in overridden)
    where = "--set" if from_option else source
    if first["type"] == "extra_forbidden":
        valid = list(_section_at(model, first["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid names are {', '.join(valid)}"
        return f"{where}: unknown key {key!r}; {hint}"
    expected = (
        "a section of keys"
        if first["type"] == "model_type"
        else first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    )
    return f"{where}: {key} is {first['input']!r}, expected {expected}"


def _section_at(model: type, path: Sequence[str | int]) -> type[BaseModel]:
    section: Any = model
    for step in path:
        section = section.model_fields[str(step)].annotation
    return section

"""``neo3df assets``: what exists, where it is looked for, under which licence; and fetching what may be fetched."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dataset_builder import AssetMissing, AssetStatus, asset_folders, describe_assets, fetch_asset

from .config import load_config
from .needed_files import NeededFile, needed_files


def print_assets(fetch: bool = False) -> None:
    """A few lines per asset: found or where to put it, licence, hash, origin, use; ``fetch`` gets what is missing."""
    for asset in describe_assets():
        path, reason = _fetched(asset) if fetch else (asset.path, "")
        _print_asset(asset, path, reason, asset.name)
    _print_folders()


def print_needed(config: Path, fetch: bool = False) -> int:
    """The same for what a run of the configuration needs, by the setting that asks for it; how many are missing.

    Environment variables that its paths name need not be set: what lies below them is missing then. Raises UserError
    for a configuration that cannot be read.
    """
    with _unset_variables_as_they_are(config) as unset:
        needed = needed_files(load_config(config))
    assets = {asset.name: asset for asset in describe_assets()}
    missing = 0
    for file in needed:
        asset = assets.get(file.asset or "")
        if asset is None:
            print(f"{file.setting}\n  {_state(file, unset)}")
            missing += file.place is None
            continue
        path, reason = _fetched(asset) if fetch else (asset.path, "")
        if file.problem and asset.path is not None:  # it is there, but another file
            path, reason = None, f": {file.problem}"
        _print_asset(asset, path, reason, f"{file.setting}: {asset.name}")
        missing += path is None
    if needed:
        _print_folders()
    print(f"{missing} of {len(needed)} missing" if needed else "nothing is needed that is not built in")
    return missing


def _state(file: NeededFile, unset: Sequence[str]) -> str:
    if file.place is not None:
        return f"found: {file.place}"
    problem = file.problem.removeprefix(f"{file.setting}: ")
    variables = [f"; set the environment variable {name}" for name in unset if f"${{{name}}}" in problem]
    return f"missing: {problem}{''.join(variables)}"


def _fetched(asset: AssetStatus) -> tuple[Path | None, str]:
    """The asset's file, downloaded if need and address be, and why it could not be."""
    if asset.path is not None or not asset.fetchable:
        return asset.path, ""
    try:
        return fetch_asset(asset.name), ""
    except AssetMissing as error:
        return None, f" ({error})"


def _print_asset(asset: AssetStatus, path: Path | None, reason: str, heading: str) -> None:
    state = f"found: {path}" if path else f"missing: put {asset.file} into an asset folder{reason}"
    if path is None and not reason and asset.fetchable:
        state += ", or --fetch it"
    print(f"{heading}\n  {state}\n  licence: {asset.licence}")
    digest = asset.sha256 or "not published; taken as it is"
    print(f"  source: {asset.source}\n  used by: {asset.used_by}\n  sha256: {digest}")


def _print_folders() -> None:
    print(f"asset folders, in this order: {', '.join(str(folder) for folder in asset_folders())}")


@contextmanager
def _unset_variables_as_they_are(config: Path) -> Iterator[list[str]]:
    """Give every variable that the file names and that is not set its own name, so that paths stay as written."""
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    unset = {name: f"${{{name}}}" for name in re.findall(r"\$\{(\w+)\}", text) if name not in os.environ}
    os.environ.update(unset)
    try:
        yield list(unset)
    finally:
        for name in unset:
            del os.environ[name]

"""``neo3df assets``: what exists, where it is looked for, under which licence."""

from rich.console import Console
from rich.table import Table

from dataset_builder import asset_folders, describe_assets


def print_assets(console: Console | None = None) -> None:
    """One row per asset of the packages: found or where to put it, licence, hash, and what uses it."""
    console = console or Console()
    table = Table("asset", "found", "licence", "sha256", "used by", "source", box=None, pad_edge=False)
    for asset in describe_assets():
        found = str(asset.path) if asset.path else f"no: put {asset.file} in an asset folder"
        table.add_row(asset.name, found, asset.licence, asset.sha256[:12], asset.used_by, asset.source)
    console.print(table)
    folders = ", ".join(str(folder) for folder in asset_folders())
    console.print(f"asset folders, in this order: {folders}", highlight=False, soft_wrap=True)

"""``neo3df assets``: what exists, where it is looked for, under which licence; and fetching what may be fetched."""

from dataset_builder import AssetMissing, asset_folders, describe_assets, fetch_asset


def print_assets(fetch: bool = False) -> None:
    """A few lines per asset: found or where to put it, licence, hash, origin, use; ``fetch`` gets what is missing."""
    for asset in describe_assets():
        path, reason = asset.path, ""
        if path is None and fetch and asset.fetchable:
            try:
                path = fetch_asset(asset.name)
            except AssetMissing as error:
                reason = f" ({error})"
        state = f"found: {path}" if path else f"missing: put {asset.file} into an asset folder{reason}"
        print(f"{asset.name}\n  {state}\n  licence: {asset.licence}")
        digest = asset.sha256 or "not published; taken as it is"
        print(f"  source: {asset.source}\n  used by: {asset.used_by}\n  sha256: {digest}")
    print(f"asset folders, in this order: {', '.join(str(folder) for folder in asset_folders())}")

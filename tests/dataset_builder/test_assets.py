import hashlib
import os
from pathlib import Path

import pytest

from dataset_builder import assets
from dataset_builder.assets import (
    ASSETS,
    Asset,
    AssetCorrupt,
    AssetMissing,
    asset_path,
    describe_assets,
    fetch_asset,
    weights_file,
)

CONTENT = b"weights of a very small network"


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """An asset of 31 bytes at a file:// address, with an empty asset folder and an empty cache."""
    origin = tmp_path / "origin.bin"
    origin.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    asset = Asset("tiny", "weights/tiny.bin", digest, "CC0", "made here", "this test", origin.as_uri())
    monkeypatch.setattr(assets, "ASSETS", {"tiny": asset})
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asset


def put(folder, asset, content=CONTENT):
    path = folder / asset.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_asset_row_is_complete():
    for name, asset in ASSETS.items():
        assert name == asset.name
        assert asset.sha256 is None or len(asset.sha256) == 64
        assert asset.sha256 or not asset.url, "what cannot be verified is not fetched"
        assert asset.licence
        assert asset.source
        assert asset.used_by
        assert not Path(asset.file).is_absolute()
        assert asset.url is None or asset.url.startswith("https://")


def test_given_folder_comes_before_the_cache(tiny, tmp_path):
    cached = put(tmp_path / "cache" / "neo3df", tiny)
    assert asset_path("tiny") == cached
    given = put(tmp_path / "given", tiny)
    assert asset_path("tiny") == given


def test_cache_is_below_home_without_xdg(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert assets.user_cache() == tmp_path / "home" / ".cache" / "neo3df"


def test_missing_asset_says_file_hash_licence_and_place(tiny, tmp_path):
    with pytest.raises(AssetMissing) as error:
        asset_path("tiny")
    message = str(error.value)
    for piece in (tiny.file, tiny.sha256, "CC0", str(tmp_path / "given" / tiny.file), "fetch_asset('tiny')"):
        assert piece in message
    assert "\n" not in message


def test_wrong_content_is_refused_even_if_it_changes_later(tiny, tmp_path):
    path = put(tmp_path / "given", tiny)
    assert asset_path("tiny") == path
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(AssetCorrupt, match=f"is not that of asset 'tiny', {tiny.sha256}"):
        asset_path("tiny")


def test_fetching_fills_the_cache_and_verifies(tiny, tmp_path):
    path = asset_path("tiny", download=True)
    assert path == tmp_path / "cache" / "neo3df" / tiny.file
    assert path.read_bytes() == CONTENT
    assert fetch_asset("tiny") == path
    assert [p.name for p in path.parent.iterdir()] == ["tiny.bin"], "no partial file stays"


def test_a_changed_origin_is_refused_and_leaves_nothing(tiny, tmp_path):
    (tmp_path / "origin.bin").write_bytes(b"something else")
    with pytest.raises(AssetCorrupt, match="is not that of asset 'tiny'"):
        fetch_asset("tiny")
    assert not (tmp_path / "cache").exists()


def test_unreachable_or_absent_address_is_reported(tiny, tmp_path, monkeypatch):
    (tmp_path / "origin.bin").unlink()
    with pytest.raises(AssetMissing, match="failed"):
        fetch_asset("tiny")
    no_address = Asset(tiny.name, tiny.file, tiny.sha256, tiny.licence, tiny.source, tiny.used_by)
    monkeypatch.setattr(assets, "ASSETS", {"tiny": no_address})
    with pytest.raises(AssetMissing, match="put it at") as error:
        asset_path("tiny", download=True)
    assert "fetch_asset" not in str(error.value)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no asset named 'bfm'; there are ict_face, "):
        asset_path("bfm")


def test_description_has_a_row_per_asset(tiny, tmp_path):
    (row,) = describe_assets()
    assert (row.name, row.path, row.licence, row.used_by, row.fetchable) == ("tiny", None, "CC0", "this test", True)
    path = put(tmp_path / "given", tiny)
    assert describe_assets()[0].path == path


def test_assets_at_hand_have_their_hashes():
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no assets to verify")
    found = [row.name for row in describe_assets() if row.path is not None]
    assert "mobilefacenet_112" in found
    for name in found:
        assert asset_path(name).is_file()


def test_an_asset_without_a_hash_may_hold_anything(tiny, tmp_path, monkeypatch):
    unknown = Asset(tiny.name, tiny.file, None, tiny.licence, tiny.source, tiny.used_by)
    monkeypatch.setattr(assets, "ASSETS", {"tiny": unknown})
    with pytest.raises(AssetMissing) as error:
        asset_path("tiny")
    assert "None" not in str(error.value)
    path = put(tmp_path / "given", tiny, b"anything")
    assert asset_path("tiny") == path


def test_a_file_given_by_path_comes_before_the_asset(tiny, tmp_path):
    asset = put(tmp_path / "given", tiny)
    assert weights_file("tiny", None) == asset
    own = tmp_path / "own.bin"
    with pytest.raises(AssetMissing) as error:
        weights_file("tiny", own)
    assert str(error.value) == (f"{own}: no such weights file; this test takes tiny.bin from made here (licence CC0)")
    own.write_bytes(b"another network of the user's")
    assert weights_file("tiny", own) == own

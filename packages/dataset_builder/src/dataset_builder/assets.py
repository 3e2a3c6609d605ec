"""Weights and face models that are not part of the package: what they are, where they are looked for, and their hash.

An asset is looked up by name under ``$NEO3DF_ASSETS``, then in the user cache (``$XDG_CACHE_HOME/neo3df``, by default
``~/.cache/neo3df``). Nothing is downloaded unless the caller asks for it and the asset has an address.
"""

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from ._checkpoints import file_sha256


@dataclass(frozen=True)
class Asset:
    """One file: its name, path below an asset folder, SHA-256, licence, origin, user in this package, and address.

    Without a hash any content is taken and nothing is fetched.
    """

    name: str
    file: str
    sha256: str | None
    licence: str
    source: str
    used_by: str
    url: str | None = None


@dataclass(frozen=True)
class AssetStatus:
    """An asset and the file found for it, or None."""

    name: str
    path: Path | None
    licence: str
    used_by: str
    file: str
    sha256: str | None
    source: str
    fetchable: bool


class AssetMissing(FileNotFoundError):
    """A file the user has to provide is not there; the message says which, under what licence, and where it goes."""


class AssetCorrupt(ValueError):
    """A file is there but is not the one expected; the message holds both hashes."""


_RAW = "https://raw.githubusercontent.com"
_GITHUB = "https://github.com"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "ict_face",
            "ict_face.npz",
            "febeb10da2365bb6e024bac0ce26798b069690a064896b5b2122c5071e345113",
            "MIT, (c) 2020 USC Institute for Creative Technologies; cite Li et al., CVPR 2020",
            "ICT-VGL/ICT-FaceKit da5f95a, its meshes as one NPZ in mm",
            "load_face_model('ict')",
        ),
        Asset(
            "retinaface_mobilenet0.25",
            "weights/retinaface_mobilenet0.25.pth",
            "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
            "Apache-2.0 (upstream MIT)",
            "foamliu/MobileFaceNet a6cc903, from biubug6/Pytorch_Retinaface",
            "FaceDetector",
        ),
        Asset(
            "pfld_ghostone_98",
            "weights/pfld_ghostone_98.onnx",
            "74d1a83932af79c2689d9371b21f32d014552f089985f076e832e89cb18f41e8",
            "Apache-2.0 (trained on WFLW)",
            "AnthonyF333/PFLD_GhostOne 7061b56",
            "LandmarkDetector",
            f"{_RAW}/AnthonyF333/PFLD_GhostOne/cf3d4933c4bc84ba9e27435275fdaa7cfcb63f68"
            "/onnx_models/PFLD_GhostOne_112_1_opt_sim.onnx",
        ),
        Asset(
            "peppa_slim160_68",
            "weights/peppa_slim160_68.onnx",
            "2121aacea9169ac27227508238237376fe64b96e2f2cc57082f26e88d650fbd2",
            "Apache-2.0",
            "ainrichman/Peppa-Facial-Landmark-PyTorch 2380633",
            "LandmarkDetector",
            f"{_RAW}/ainrichman/Peppa-Facial-Landmark-PyTorch/238063317fd31c4c21c5c43692e6a5d769970370"
            "/pretrained_weights/slim_160_latest.onnx",
        ),
        Asset(
            "mobilefacenet_112",
            "weights/mobilefacenet_112.onnx",
            "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
            "Apache-2.0 (trained on MS1M: research use)",
            "foamliu/MobileFaceNet a6cc903",
            "load_encoder('mobilefacenet')",
            f"{_RAW}/foamliu/MobileFaceNet/22d3e78287c70e23cf2f5b6a6a92594008831a7f/weights/MobileFaceNet.onnx",
        ),
        Asset(
            "facenet_vggface2",
            "weights/20180402-114759-vggface2.pt",
            "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
            "MIT (trained on VGGFace2: research use)",
            "timesler/facenet-pytorch, release v2.2.9",
            "load_encoder('facenet')",
            f"{_GITHUB}/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
        ),
        Asset(
            "arcface_ir_se50",
            "weights/recognition_arcface_ir_se50.pth",
            "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
            "MIT (trained on MS1M: research use)",
            "xinntao/facexlib, release v0.1.0, from TreB1eN/InsightFace_Pytorch",
            "load_encoder('arcface')",
            f"{_GITHUB}/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
        ),
        Asset(
            "deep3dmm",
            "weights/deep3dmm_epoch_20.pth",
            None,
            "MIT (code; of use with the Basel Face Model only: research, non-commercial)",
            "sicxu/Deep3DFaceRecon_pytorch, its pretrained epoch_20.pth",
            "Deep3DMM",
        ),
        Asset(
            "parsing_bisenet",
            "weights/parsing_bisenet.pth",
            None,
            "MIT (trained on CelebAMask-HQ: non-commercial research)",
            f"{_GITHUB}/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth, "
            "from zllrunning/face-parsing.PyTorch",
            "load_parser('bisenet')",
        ),
        Asset(
            "parsing_parsenet",
            "weights/parsing_parsenet.pth",
            "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
            "CC BY-NC-SA 4.0 (trained on CelebAMask-HQ: non-commercial research)",
            "xinntao/facexlib, release v0.2.2, from chaofengc/PSFRGAN",
            "load_parser('parsenet')",
            f"{_GITHUB}/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
        ),
    )
}
"""Every asset of this package by name."""


def asset_folders() -> list[Path]:
    """Folders in which assets are looked for, in order: ``$NEO3DF_ASSETS`` if set, then the user cache."""
    given = os.environ.get("NEO3DF_ASSETS")
    return [*([Path(given)] if given else []), user_cache()]


def user_cache() -> Path:
    """The user's cache folder of this project; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "neo3df"


def asset_path(name: str, *, download: bool = False) -> Path:
    """File of an asset, its hash verified once per process.

    Args:
        name: a key of :data:`ASSETS`.
        download: fetch a missing asset into the user cache if it has an address.

    Raises:
        ValueError: no asset of that name.
        AssetMissing: not found (and not fetched).
        AssetCorrupt: found, but with another hash.
    """
    asset = _asset(name)
    found = _find(asset)
    if found is None:
        if not download:
            raise AssetMissing(_missing(asset))
        return fetch_asset(name)
    _verify(asset, found)
    return found


def weights_file(name: str, given: Path | None) -> Path:
    """The file a user gives, else that of the asset, verified. A given file may have any content.

    Raises:
        AssetMissing: neither is there; the message says what is wanted, its licence and where to get it.
        AssetCorrupt: the asset has another hash than the published file.
    """
    if given is None:
        return asset_path(name)
    if not given.is_file():
        asset = _asset(name)
        raise AssetMissing(
            f"{given}: no such weights file; {asset.used_by} takes {Path(asset.file).name} from {asset.source} "
            f"(licence {asset.licence})"
        )
    return given


def fetch_asset(name: str) -> Path:
    """Download an asset into the user cache and verify it; a file already there is only verified.

    Raises:
        ValueError: no asset of that name.
        AssetMissing: the asset has no address, or it could not be reached.
        AssetCorrupt: the address, or the cache, holds another file.
    """
    asset = _asset(name)
    target = user_cache() / asset.file
    if target.is_file():
        _verify(asset, target)
        return target
    if asset.url is None:
        raise AssetMissing(_missing(asset))
    try:
        with urllib.request.urlopen(asset.url, timeout=60) as reply:
            content = reply.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise AssetMissing(f"{_missing(asset)} Fetching {asset.url} failed: {error}") from error
    _check_hash(asset, asset.url, hashlib.sha256(content).hexdigest())
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, delete=False) as partial:
        partial.write(content)
    os.replace(partial.name, target)
    return target


def describe_assets() -> list[AssetStatus]:
    """One row per asset: what it is, where it was found (not verified), its licence and who uses it."""
    return [
        AssetStatus(a.name, _find(a), a.licence, a.used_by, a.file, a.sha256, a.source, a.url is not None)
        for a in ASSETS.values()
    ]


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise ValueError(f"no asset named {name!r}; there are {', '.join(ASSETS)}")
    return ASSETS[name]


def _find(asset: Asset) -> Path | None:
    return next((path for folder in asset_folders() if (path := folder / asset.file).is_file()), None)


def _missing(asset: Asset) -> str:
    places = " or ".join(str(folder / asset.file) for folder in asset_folders())
    digest = f"sha256 {asset.sha256}; " if asset.sha256 else ""
    fetch = f" or fetch it with fetch_asset({asset.name!r})" if asset.url else ""
    return (
        f"{asset.used_by} needs {asset.file} ({digest}licence {asset.licence}; from {asset.source}): "
        f"put it at {places}{fetch}."
    )


def _verify(asset: Asset, path: Path) -> None:
    if asset.sha256 is not None:
        _check_hash(asset, str(path), file_sha256(path))


def _check_hash(asset: Asset, place: str, found: str) -> None:
    if found != asset.sha256:
        raise AssetCorrupt(
            f"{place}: sha256 {found} is not that of asset {asset.name!r}, {asset.sha256}; replace the file"
        )

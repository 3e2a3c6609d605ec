"""Who labels a crop: parsing networks of others and our own, and the masks that come with the photographs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ._checkpoints import fill_network, read_state
from .alignment import CROP_SIZE, CropTransform
from .assets import weights_file
from .encoding_cache import image_sha256
from .masks import crop_ignore, crop_labels, read_mask
from .parser_labels import PARSER_CLASSES, ParsedFaces, labels_of_classes
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, check_crops
from .procedural import SyntheticPhoto
from .small_parser import SmallParser
from .torchvision_compat import ensure_torchvision

UInt8 = NDArray[np.uint8]
Value = TypeVar("Value")

PARSERS = ("bisenet", "parsenet", "small", "celebamask-folder", "synthetic")

_BATCH = 4
_NETWORK_INPUTS = {
    "bisenet": Preprocessing("standard", 512, IMAGENET_MEAN, IMAGENET_STD),
    "parsenet": Preprocessing("standard", 512, (127.5,) * 3, (127.5,) * 3),
}


class FaceParser(Protocol):
    """Anything that labels standard crops. ``name`` is one of PARSERS."""

    name: str

    def parse(self, crops: UInt8) -> ParsedFaces:
        """Labels (B, 224, 224) uint8, our ids, and ignored pixels of crops (B, 224, 224, 3) uint8 RGB."""
        ...


def load_parser(name: str, weights: Path | None = None) -> FaceParser:
    """A parsing network by name.

    Args:
        name: "bisenet" or "parsenet", networks of facexlib whose weights are assets; or "small", which is trained here.
        weights: the weights file. None takes the asset; "small" has none and needs what its ``save`` wrote.

    Raises:
        ValueError: a name that is no network's, "small" without weights, or a file that is damaged or of another
            network.
        AssetMissing: no such file; the message says which is wanted, its licence and where to get it.
        AssetCorrupt: the asset has another hash than the published file.
        ImportError: a library of the extra [photos] is missing.
    """
    if name in PARSER_CLASSES:
        path = weights_file(f"parsing_{name}", weights)
        with torch.device("meta"):
            network = parsing_network(name)
        fill_network(network, read_state(path), path)
        return NetworkParser(name, network)
    if name == "small":
        if weights is None:
            raise ValueError("parser 'small' has no weights of its own: give the file of a trained one")
        return SmallParser.load(weights)
    if name in PARSERS:
        maker = "CelebAMaskFolder" if name == "celebamask-folder" else "SyntheticTruth"
        raise ValueError(f"parser {name!r} looks masks up and has no weights: make it with {maker}(...)")
    raise ValueError(f"no parser named {name!r}; there are {', '.join(PARSERS)}")


def parsing_network(name: str) -> nn.Module:
    """facexlib's BiSeNet (Yu et al. 2018) or ParseNet (Chen et al. 2021) with random weights; 19 classes.

    Raises:
        ImportError: facexlib or torchvision is not installed; the message names the extra.
    """
    ensure_torchvision()
    try:
        from facexlib.parsing.bisenet import BiSeNet
        from facexlib.parsing.parsenet import ParseNet
    except ImportError as error:
        raise ImportError(f"{name} needs facexlib: pip install 'neo3df-dataset-builder[photos]'") from error
    make = {"bisenet": lambda: BiSeNet(num_class=19), "parsenet": lambda: ParseNet(512, 512, parsing_ch=19)}
    network: nn.Module = make[name]()
    return network


class NetworkParser:
    """A network of 19 classes as a parser: crops are shown at 512 x 512, and the logits averaged back to the crop.

    Args:
        name: a key of PARSER_CLASSES, which says in what order the network counts its classes.
        network: from (B, 3, 512, 512) to logits (B, 19, 512, 512), first of several outputs.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name = name
        self._network = network.eval()

    @torch.no_grad()
    def parse(self, crops: UInt8) -> ParsedFaces:
        """See :class:`FaceParser`.

        Raises:
            ValueError: wrong shape or dtype.
        """
        check_crops(crops)
        indices = np.empty((len(crops), CROP_SIZE, CROP_SIZE), np.uint8)
        for first in range(0, len(crops), _BATCH):
            some = slice(first, first + _BATCH)
            logits = self._network(_NETWORK_INPUTS[self.name].apply(crops[some]))[0]
            at_crop = functional.interpolate(logits, (CROP_SIZE, CROP_SIZE), mode="bilinear", antialias=True)
            indices[some] = at_crop.argmax(1).numpy()
        return labels_of_classes(indices, self.name)


class CelebAMaskFolder:
    """Hand-made masks in a folder, for crops whose photo and place in it are known.

    Args:
        folder: of index masks ``{stem}.png`` or the per-class tree of CelebAMask-HQ.
        crops: (N, 224, 224, 3) uint8, the crops that can be asked for.
        stems: N names of their photos.
        transforms: N maps from photo to crop.

    Raises:
        ValueError: the lengths differ.
    """

    name = "celebamask-folder"

    def __init__(self, folder: Path, crops: UInt8, stems: Sequence[str], transforms: Sequence[CropTransform]) -> None:
        check_crops(crops)
        if not len(crops) == len(stems) == len(transforms):
            raise ValueError(f"{len(crops)} crops, {len(stems)} stems and {len(transforms)} transforms must be as many")
        self._folder = folder
        self._origin = {image_sha256(crop): i for i, crop in enumerate(crops)}
        self._stems, self._transforms = list(stems), list(transforms)

    def parse(self, crops: UInt8) -> ParsedFaces:
        """See :class:`FaceParser`; masks are read from disk as they are asked for.

        Raises:
            ValueError: wrong shape, an unknown crop, or a mask that cannot be used.
            FileNotFoundError: a photo has no mask.
        """
        check_crops(crops)
        labels = np.empty(crops.shape[:3], np.uint8)
        ignore = np.empty(crops.shape[:3], bool)
        for i, crop in enumerate(crops):
            row = _known(self._origin, crop, i)
            mask = read_mask(self._folder, self._stems[row])
            if mask is None:
                raise FileNotFoundError(f"{self._folder}: no mask of photo {self._stems[row]!r}")
            labels[i] = crop_labels(mask[0], self._transforms[row])
            ignore[i] = crop_ignore(mask[1], self._transforms[row])
        return ParsedFaces(labels, ignore)


class SyntheticTruth:
    """The exact masks of synthetic photographs, which are their own crops."""

    name = "synthetic"

    def __init__(self, photos: Iterable[SyntheticPhoto]) -> None:
        self._masks = {image_sha256(photo.image): photo.mask for photo in photos}

    def parse(self, crops: UInt8) -> ParsedFaces:
        """See :class:`FaceParser`; hair and the like are background, not ignored: they are where the mask says.

        Raises:
            ValueError: wrong shape, or a crop that is none of the photographs.
        """
        check_crops(crops)
        masks = [_known(self._masks, crop, i) for i, crop in enumerate(crops)]
        labels = np.array(masks, np.uint8).reshape(crops.shape[:3])
        return ParsedFaces(labels, np.zeros(labels.shape, bool))


def _known(by_digest: Mapping[str, Value], crop: UInt8, i: int) -> Value:
    digest = image_sha256(crop)
    if digest not in by_digest:
        raise ValueError(f"crop {i} is none of the {len(by_digest)} whose masks are known")
    return by_digest[digest]

"""Image files of unknown origin, decoded without harm: whatever is wrong with one becomes a code and one line.

A photo or mask may be cut off, be something else under an image's name, claim a gigantic size, or be no file at all.
"""

import stat
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

UInt8 = NDArray[np.uint8]

MAX_BYTES = 512 * 2**20
MAX_PIXELS = 150_000_000  # a 20,000 x 7,500 panorama; 450 MB of RGB

# Formats that only decode pixels; Pillow also opens some (EPS) by running other programs.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


class UnusableImage(ValueError):
    """A file that is no usable image: ``code`` for counting, the message one line for the user."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(printable(detail))
        self.code = code


def printable(text: str) -> str:
    """Text on one line that any encoding of Unicode can hold: control and stray characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def read_bytes(path: Path) -> bytes:
    """Content of a regular file; pipes, sockets and devices are not even opened.

    Raises:
        UnusableImage: "not_a_file", "too_large", or "unreadable" where the system refuses.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UnusableImage("not_a_file", f"{path.name}: {_kind(facts.st_mode)}, not a file")
        if facts.st_size > MAX_BYTES:
            raise UnusableImage(
                "too_large", f"{path.name}: {facts.st_size >> 20} MiB, more than {MAX_BYTES >> 20} MiB are not read"
            )
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # a loop of symbolic links may raise either
        reason = getattr(error, "strerror", None) or error
        raise UnusableImage("unreadable", f"{path.name}: {reason}") from error


def decode_image(content: bytes, name: str) -> Image.Image:
    """First frame with every pixel decoded (so a truncated file fails here), upright by its EXIF orientation.

    Raises:
        UnusableImage: "unreadable" or "too_large"; ``name`` begins the message.
    """
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        _register_heif(name)
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit of pixels is ours, below
            image = Image.open(BytesIO(content), formats=[f for f in _FORMATS if f in Image.OPEN])
        _check_size(image, name)
        image.load()
        return ImageOps.exif_transpose(image)
    except UnusableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnusableImage("unreadable", f"{name}: not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage("too_large", f"{name}: {error}") from error
    except Exception as error:  # broken files lead Pillow's decoders to exceptions of any kind
        raise UnusableImage("unreadable", f"{name}: {str(error) or type(error).__name__}") from error


def rgb_pixels(image: Image.Image, name: str) -> UInt8:
    """Pixels (H, W, 3) uint8: 16 bits scaled down to 8, transparency over white, other colour spaces converted.

    Raises:
        UnusableImage: "pixel_type" for floating-point or 32-bit values, whose range nobody knows; or "unreadable".
    """
    if image.mode == "F":
        raise UnusableImage("pixel_type", f"{name}: floating-point pixels; a photo has 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        return _rgb_of_16_bits(np.asarray(image), name)
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # as above
        raise UnusableImage("unreadable", f"{name}: {str(error) or type(error).__name__}") from error


def _rgb_of_16_bits(values: NDArray[np.integer], name: str) -> UInt8:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnusableImage("pixel_type", f"{name}: values {low}..{high}; a photo has 8 or 16 bits per channel")
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImage(
            "too_large", f"{name}: {width}x{height} px, more than {MAX_PIXELS // 10**6} megapixels are not decoded"
        )


def _register_heif(name: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise UnusableImage("unreadable", f"{name}: HEIC photos need pillow-heif: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device")

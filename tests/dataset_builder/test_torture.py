"""Folders of everything that can be wrong with a photo or a mask: nothing crashes or hangs, everything is counted."""

import os
import socket
import struct
import threading
import zlib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dataset_builder.alignment import align_face
from dataset_builder.detection import FaceDetector, largest_face
from dataset_builder.landmark_networks import LandmarkDetector
from dataset_builder.masks import crop_ignore, crop_labels
from dataset_builder.photos import Photo, Rejected, read_photos

PHOTO = "photo"
_seed = iter(range(10_000))


def noise(height=80, width=100, channels=3):
    """A picture no other is like, so that none is taken for a duplicate."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(next(_seed)).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind, **options):
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def cut(content, share=0.5):
    return content[: int(len(content) * share)]


def png(width, height, depth, colour, rows=b"", extra=b""):
    """A PNG by hand, for what Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def text_chunk_bomb():
    data = b"comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return png(80, 80, 8, 0, (b"\0" + bytes(80)) * 80, chunk)


def bmp_claiming(width, height):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def rgb16():
    rows = np.random.default_rng(next(_seed)).integers(0, 256, (80, 80 * 6), dtype=np.uint8)
    return png(80, 80, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def frames(kind, count=3):
    first, *others = (Image.fromarray(noise()) for _ in range(count))
    return encoded(first, kind, save_all=True, append_images=others)


def with_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(noise(), "JPEG", exif=exif)


def floats(value):
    return encoded(np.where(noise(channels=1) > 200, value, 0.5).astype(np.float32), "TIFF")


def palette_with_alpha():
    image = Image.fromarray(noise()).quantize(16)
    return encoded(image, "PNG", transparency=bytes(range(0, 256, 16)))


GOOD_JPEG = encoded(noise(120, 120), "JPEG")

CONTENTS = {
    "truncated.jpg": (lambda: cut(encoded(noise(300, 300), "JPEG")), "unreadable"),
    "truncated progressive.jpg": (lambda: cut(encoded(noise(300, 300), "JPEG", progressive=True)), "unreadable"),
    "truncated png.png": (lambda: cut(encoded(noise(), "PNG")), "unreadable"),
    "truncated webp.webp": (lambda: cut(encoded(noise(), "WEBP")), "unreadable"),
    "truncated tif.tif": (lambda: cut(encoded(noise(), "TIFF", compression="tiff_lzw")), "unreadable"),
    "truncated bmp.bmp": (lambda: cut(encoded(noise(), "BMP")), "unreadable"),
    "truncated gif.gif": (lambda: cut(encoded(noise(channels=1), "GIF")), "unreadable"),
    "header only.jpg": (lambda: cut(GOOD_JPEG, 0.1), "unreadable"),
    "empty.jpg": (lambda: b"", "unreadable"),
    "one byte.png": (lambda: b"\x89", "unreadable"),
    "zeros.jpg": (lambda: bytes(5000), "unreadable"),
    "text.jpg": (lambda: b"this is not a picture\n" * 50, "unreadable"),
    "page.png": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "unreadable"),
    "vector.png": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unreadable"),
    "document.jpg": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "unreadable"),
    "postscript.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EOF\n", "unreadable"),
    "archive.jpg": (lambda: b"PK\x03\x04" + bytes(200), "unreadable"),
    "flipped byte.png": (lambda: encoded(noise(), "PNG").replace(b"IDAT", b"IDAT\xff", 1), "unreadable"),
    "text bomb.png": (text_chunk_bomb, "unreadable"),
    "bomb.png": (lambda: png(60_000, 60_000, 8, 2), "too_large"),
    "bomb bitmap.bmp": (lambda: bmp_claiming(60_000, 60_000), "too_large"),
    "long claim.png": (lambda: png(60_000, 100, 8, 2), "unreadable"),
    "wide claim.png": (lambda: png(20_000, 8_000, 8, 0), "too_large"),
    "one pixel.png": (lambda: encoded(noise(1, 1), "PNG"), "too_small"),
    "narrow.png": (lambda: encoded(noise(300, 8), "PNG"), "too_small"),
    "no size.bmp": (lambda: bmp_claiming(0, 0), "unreadable"),
    "not a number.tif": (lambda: floats(np.nan), "pixel_type"),
    "float.tif": (lambda: floats(1.0), "pixel_type"),
    "negative.tif": (lambda: encoded(noise(channels=1).astype(np.int32) - 1000, "TIFF"), "pixel_type"),
    "notes.txt": (lambda: b"where the pictures come from", "not_a_photo"),
    "manifest.csv": (lambda: b"file,person\n", "not_a_photo"),
    ".DS_Store": (lambda: b"\0\0\0\x01Bud1", "not_a_photo"),
    "no ending": (lambda: encoded(noise(), "JPEG"), "not_a_photo"),
    "movie.mp4": (lambda: b"\0\0\0\x18ftypmp42", "not_a_photo"),
    "._copy.jpg": (lambda: b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "unreadable"),
    "cmyk.jpg": (lambda: encoded(Image.fromarray(noise()).convert("CMYK"), "JPEG"), PHOTO),
    "cmyk tiff.tif": (lambda: encoded(Image.fromarray(noise()).convert("CMYK"), "TIFF"), PHOTO),
    "lab.tif": (lambda: encoded(Image.fromarray(noise(channels=3), "LAB"), "TIFF"), PHOTO),
    "grey 16.png": (lambda: encoded(noise(channels=1).astype(np.uint16) * 257, "PNG"), PHOTO),
    "grey 16 tiff.tif": (lambda: encoded(noise(channels=1).astype(np.uint16) * 257, "TIFF"), PHOTO),
    "rgb 16.png": (rgb16, PHOTO),
    "grey.jpg": (lambda: encoded(noise(channels=1), "JPEG"), PHOTO),
    "grey alpha.png": (lambda: encoded(noise(channels=2), "PNG"), PHOTO),
    "rgb alpha.png": (lambda: encoded(noise(channels=4), "PNG"), PHOTO),
    "palette alpha.png": (palette_with_alpha, PHOTO),
    "one bit.png": (lambda: encoded(Image.fromarray(noise()).convert("1"), "PNG"), PHOTO),
    "animated.gif": (lambda: frames("GIF"), PHOTO),
    "animated webp.webp": (lambda: frames("WEBP"), PHOTO),
    "animated png.png": (lambda: frames("PNG"), PHOTO),
    "pages.tif": (lambda: frames("TIFF"), PHOTO),
    "rotated.jpg": (lambda: with_exif(6), PHOTO),
    "orientation 99.jpg": (lambda: with_exif(99), PHOTO),
    "broken exif.jpg": (lambda: encoded(noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"), PHOTO),
    "wide.png": (lambda: encoded(noise(64, 6000), "PNG"), PHOTO),
    "tall.png": (lambda: encoded(noise(6000, 64), "PNG"), PHOTO),
    "png inside.jpg": (lambda: encoded(noise(), "PNG"), PHOTO),
    "jpeg inside.png": (lambda: encoded(noise(), "JPEG"), PHOTO),
    "gif inside.tiff": (lambda: encoded(noise(channels=1), "GIF"), PHOTO),
    "CAPITALS.JPG": (lambda: encoded(noise(), "JPEG"), PHOTO),
    "trailing bytes.jpg": (lambda: encoded(noise(), "JPEG") + b"appended" * 100, PHOTO),
    "twice.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    "twice.webp": (lambda: encoded(noise(), "WEBP"), PHOTO),
    "twice.png": (lambda: encoded(noise(), "PNG"), "not_a_photo"),
    "copy 1.jpg": (lambda: GOOD_JPEG, PHOTO),
    "copy 2.jpeg": (lambda: GOOD_JPEG, "duplicate"),
    "лицо 顔 चेहरा وجه.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    "new\nline\ttab.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    "broken\nname.jpg": (lambda: b"", "unreadable"),
    "\u202egpj.exe.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    " -rf *.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    f"{'long' * 62}.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    f"{'9' * 200}.jpg": (lambda: encoded(noise(), "JPEG"), PHOTO),
    os.fsdecode(b"not utf-8 \xff\xfe.jpg"): (lambda: encoded(noise(), "JPEG"), PHOTO),
}
"""Name: what makes the file's content, and the code it must get."""


NO_FILES = {
    "directory.jpg": "not_a_file",
    "subfolder": "not_a_file",
    "circle": "not_a_file",
    "loop.jpg": "unreadable",
    "nowhere.jpg": "unreadable",
    "far.jpg": "unreadable",
    "device.jpg": "not_a_file",
    "pipe.jpg": "not_a_file",
    "sparse.jpg": "too_large",
    "link.jpg": PHOTO,
}
"""Entries that are no plain files, and the code each must get."""


def make_links_and_pipes(folder):
    (folder / "directory.jpg").mkdir()
    (folder / "subfolder").mkdir()
    (folder / "subfolder" / "inside.jpg").write_bytes(encoded(noise(), "JPEG"))
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "nowhere.jpg").symlink_to("absent.jpg")
    (folder / "far.jpg").symlink_to("x" * 300)  # longer than a file name may be
    (folder / "device.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(2**30)
    (folder / "link.jpg").symlink_to("subfolder/inside.jpg")


def in_time(work, seconds=60):
    """Result of ``work()``, or failure if it hangs, say on a pipe."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "reading raised or hangs"
    return results[0]


@pytest.fixture(scope="module")
def tortured(tmp_path_factory):
    """Results by file name of a folder of bad inputs."""
    folder = tmp_path_factory.mktemp("torture")
    for name, (content, _) in CONTENTS.items():
        (folder / name).write_bytes(content())
    make_links_and_pipes(folder)
    items = in_time(lambda: list(read_photos(folder)))
    assert len(items) == len(list(folder.iterdir())), "every entry has one result"
    return {item.path.name: item for item in items}


@pytest.mark.parametrize("name", [*CONTENTS, *NO_FILES], ids=lambda name: ascii(name)[:40])
def test_every_bad_file_has_its_code(tortured, name):
    item = tortured[name]
    expected = NO_FILES[name] if name in NO_FILES else CONTENTS[name][1]
    assert (PHOTO if isinstance(item, Photo) else item.code) == expected, getattr(item, "detail", "")
    assert item.name.isprintable()
    assert item.name.encode()
    if isinstance(item, Rejected):
        assert item.detail.isprintable(), "one line, without control characters"
        assert item.detail.encode(), "no stray surrogate"
        assert " object at 0x" not in item.detail, "the same line on every run"
        assert len(item.detail) < 500
    else:
        assert item.image.dtype == np.uint8
        assert item.image.ndim == 3
        assert item.image.shape[2] == 3


def test_names_stay_apart(tortured):
    items = tortured
    names = [item.name for item in items.values()]
    assert len(set(names)) == len(names)
    assert items["twice.jpg"].name == "twice.jpg"
    assert items["twice.webp"].name == "twice.webp"
    assert items["new\nline\ttab.jpg"].name == "new\\nline\\ttab"


def test_rotation_and_first_frames(tortured):
    items = tortured
    assert items["rotated.jpg"].image.shape == (100, 80, 3)
    assert items["orientation 99.jpg"].image.shape == (80, 100, 3)
    assert items["animated.gif"].image.shape == (80, 100, 3)
    assert items["grey 16.png"].image.mean() == pytest.approx(127.5, abs=3)


def test_a_file_without_permission_and_a_socket(tmp_path):
    (tmp_path / "closed.jpg").write_bytes(encoded(noise(), "JPEG"))
    (tmp_path / "closed.jpg").chmod(0)
    allowed = os.access(tmp_path / "closed.jpg", os.R_OK)  # by a superuser
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path must be short
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
        closed, sock = in_time(lambda: list(read_photos(tmp_path)))
    assert isinstance(closed, Photo) if allowed else (closed.code, closed.detail) == (
        "unreadable", "closed.jpg: Permission denied",
    )  # fmt: skip
    assert (sock.code, sock.detail) == ("not_a_file", "socket.jpg: a socket, not a file")


def test_a_refused_file_says_why(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(noise(), "JPEG"))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (item,) = read_photos(tmp_path)
    assert (item.code, item.detail) == ("unreadable", "a.jpg: Permission denied")


def test_a_folder_that_cannot_be_listed_is_one_clear_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ValueError, match=r": Permission denied$"):
        read_photos(tmp_path)


def test_one_bad_input_by_its_own_path(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (item,) = in_time(lambda: list(read_photos(tmp_path / "pipe.jpg")))
    assert (item.code, item.detail) == ("not_a_file", "pipe.jpg: a pipe, not a file")
    (tmp_path / "photo.jpg").write_bytes(encoded(noise(), "JPEG"))
    (item,) = in_time(lambda: list(read_photos(tmp_path / "photo.jpg", tmp_path / "pipe.jpg")))
    assert (item.code, item.detail) == ("not_a_file", "pipe.jpg: a pipe, not a file"), "as its mask"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(ValueError, match="no such photo or folder"):
        read_photos(tmp_path / "loop.jpg")


def test_a_broken_decoder_rejects_the_photo_only(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(noise(), "JPEG"))

    def load(image):
        raise struct.error("unpack requires\na buffer of 4 bytes")

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", load)
    (item,) = read_photos(tmp_path)
    assert (item.code, item.detail) == ("unreadable", "a.jpg: unpack requires\\na buffer of 4 bytes")


def index_mask(height=80, width=100, value=2, dtype=np.uint8):
    mask = np.zeros((height, width), dtype)
    mask[10:40, 20:60] = value
    return mask


MASKS = {
    "good": (lambda: encoded(index_mask(), "PNG"), PHOTO),
    "half size": (lambda: encoded(index_mask(40, 50), "PNG"), PHOTO),
    "16 bit": (lambda: encoded(index_mask(dtype=np.uint16), "PNG"), PHOTO),
    "palette": (lambda: encoded(Image.fromarray(index_mask()).convert("P"), "PNG"), PHOTO),
    "one bit": (lambda: encoded(Image.fromarray(index_mask() > 0), "PNG"), PHOTO),
    "hair only": (lambda: encoded(index_mask(value=13), "PNG"), PHOTO),
    "other shape": (lambda: encoded(index_mask(80, 80), "PNG"), "mask_size"),
    "turned": (lambda: encoded(index_mask(100, 80), "PNG"), "mask_size"),
    "unknown id": (lambda: encoded(index_mask(value=19), "PNG"), "mask_label"),
    "binary 255": (lambda: encoded(index_mask(value=255), "PNG"), "mask_label"),
    "16 bit unknown": (lambda: encoded(index_mask(value=40_000, dtype=np.uint16), "PNG"), "mask_label"),
    "colours": (lambda: encoded(noise(), "PNG"), "mask_format"),
    "colours alpha": (lambda: encoded(noise(channels=4), "PNG"), "mask_format"),
    "grey alpha": (lambda: encoded(noise(channels=2), "PNG"), "mask_format"),
    "jpeg": (lambda: encoded(noise(), "JPEG"), "mask_format"),
    "float": (lambda: floats(np.nan), "mask_format"),
    "empty": (lambda: encoded(index_mask(value=0), "PNG"), "mask_empty"),
    "no bytes": (lambda: b"", "unreadable"),
    "truncated": (lambda: cut(encoded(noise(channels=1), "PNG")), "unreadable"),
    "text": (lambda: b"0 0 0 0 1 1 2", "unreadable"),
    "bomb": (lambda: png(60_000, 60_000, 8, 0), "too_large"),
}


def test_every_bad_mask_rejects_its_photo_with_its_code(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    expected = {}
    for name, (content, code) in MASKS.items():
        (masks / f"{name}.png").write_bytes(content())
        expected[name] = code
    (masks / "folder.png").mkdir()
    os.mkfifo(masks / "pipe.png")
    (masks / "nowhere.png").symlink_to("absent.png")
    (masks / "loop.png").symlink_to("loop.png")
    expected |= {"folder": "not_a_file", "pipe": "not_a_file", "nowhere": "unreadable", "loop": "unreadable"}
    expected |= {"x" * 250: PHOTO}  # its class masks would have names too long for the file system
    for class_name, value, code in (("skin", 1, "mask_format"), ("nose", 255, PHOTO), ("u_lip", 0, "mask_empty")):
        Image.fromarray(index_mask(value=value)).save(masks / f"tree {value}_{class_name}.png")
        expected[f"tree {value}"] = code
    Image.fromarray(index_mask(value=255)).save(masks / "sizes_nose.png")
    Image.fromarray(index_mask(90, 90, 255)).save(masks / "sizes_skin.png")
    (masks / "cut_nose.png").write_bytes(cut(encoded(noise(channels=1), "PNG")))
    (masks / "dead_nose.png").symlink_to("absent.png")
    expected |= {"sizes": "mask_size", "cut": "unreadable", "dead": "unreadable"}
    for name in expected:
        (photos / f"{name}.jpg").write_bytes(encoded(noise(), "JPEG"))
    items = in_time(lambda: list(read_photos(photos, masks)))
    found = {item.name: PHOTO if isinstance(item, Photo) else item.code for item in items}
    assert found == expected
    for item in items:
        if isinstance(item, Rejected):
            assert item.detail.isprintable()
            assert item.name in item.detail
            assert " object at 0x" not in item.detail
        else:
            assert (item.mask is None) == (item.name == "x" * 250)


def face_pictures(photo):
    """Pictures on which a face detector may find nothing, half a face, or something odd; photo is (H, W, 3)."""
    height, width = photo.shape[:2]
    strip = np.zeros((64, 6000, 3), np.uint8)
    strip[:, 3000:3064] = np.asarray(Image.fromarray(photo).resize((64, 64)))
    drawing = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(drawing).ellipse((50, 50, 250, 250), fill="yellow", outline="black")
    return {
        "noise": noise(300, 300),
        "black": np.zeros((200, 200, 3), np.uint8),
        "white": np.full((200, 200, 3), 255, np.uint8),
        "drawing": np.asarray(drawing),
        "left half": photo[:, : width // 2],
        "right half": photo[:, width // 2 :],
        "upper half": photo[: height // 2],
        "lower half": photo[height // 2 :],
        "eye only": photo[height // 3 : height // 2, width // 4 : width // 2],
        "upside down": photo[::-1],
        "lying": np.rot90(photo),
        "grey": photo.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2),
        "small": np.asarray(Image.fromarray(photo).resize((64, 64))),
        "strip": strip,
        "pillar": np.ascontiguousarray(strip.transpose(1, 0, 2)),
        "crowd": np.tile(np.asarray(Image.fromarray(photo).resize((100, 100))), (3, 4, 1)),
    }


def test_odd_faces_become_a_crop_or_a_reason(tmp_path):
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no photographs, no detector weights")
    if find_spec("facexlib") is None or find_spec("onnxruntime") is None:
        pytest.skip("facexlib or onnxruntime is not installed")
    source = Path(os.environ["NEO3DF_ASSETS"]) / "celebamask_maskgan" / "0.jpg"
    photo = np.asarray(Image.open(source).convert("RGB").resize((512, 512)))
    for name, picture in face_pictures(photo).items():
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / f"{name}.png")
    detector, networks, outcome = FaceDetector(), LandmarkDetector(), {}
    for item in read_photos(tmp_path):
        face = item if isinstance(item, Rejected) else largest_face(item, detector)
        if isinstance(face, Rejected):
            outcome[item.name] = face.code
            continue
        try:
            crop = align_face(item.image, face.five_points)
        except ValueError:
            outcome[item.name] = "no crop"
            continue
        landmarks = crop.transform.to_crop(networks.detect(item.image, face.box))
        assert np.isfinite(landmarks).all()
        assert crop.image.shape == (224, 224, 3)
        blank = np.zeros(item.image.shape[:2], np.uint8)
        assert crop_labels(blank, crop.transform).shape == (224, 224)
        assert not crop_ignore(blank > 0, crop.transform).any()
        outcome[item.name] = "face"
    assert set(outcome) == set(face_pictures(photo))
    for name in ("noise", "black", "white"):
        assert outcome[name] == "no_face"
    assert outcome["grey"] == outcome["crowd"] == "face"

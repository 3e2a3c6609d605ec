import csv
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builder.photos import Photo, PhotoFile, Rejected, list_photos, read_photo, read_photos


def picture(height=90, width=120, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def index_mask(height=90, width=120, value=2):
    mask = np.zeros((height, width), np.uint8)
    mask[10:40, 20:60] = value
    return Image.fromarray(mask)


def only(result):
    (item,) = result
    return item


def test_folder_in_natural_order_with_hash_and_rgb(tmp_path):
    for name in ("img10.jpg", "img2.png", "IMG1.JPG"):
        picture(seed=len(name)).save(tmp_path / name)
    picture().convert("L").save(tmp_path / "grey.webp")
    photos = list(read_photos(tmp_path))
    assert [photo.path.name for photo in photos] == ["grey.webp", "IMG1.JPG", "img2.png", "img10.jpg"]
    for photo in photos:
        assert isinstance(photo, Photo)
        assert photo.image.shape == (90, 120, 3)
        assert photo.image.dtype == np.uint8
        assert photo.mask is None
        assert photo.ignore is None
        assert photo.sha256 == hashlib.sha256(photo.path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(photos[2].image, np.asarray(picture(seed=8)))


def test_what_is_no_photo_is_accounted_for_too(tmp_path):
    picture().save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("not a photo")
    (tmp_path / "sub").mkdir()
    items = list(read_photos(tmp_path))
    assert [item.path.name for item in items] == ["a.jpg", "a.txt", "sub"]
    assert items[0].name == "a", "another kind of file takes no photo's name away"
    assert [item.code for item in items[1:]] == ["not_a_photo", "not_a_file"]
    assert items[1].detail.startswith("a.txt: not a photo by its name (.jpg .jpeg .png")
    assert items[2].detail == "sub: a folder; subfolders are not entered"


def test_listing_reads_nothing_and_single_photos_are_read_by_it(tmp_path):
    (tmp_path / "2.jpg").write_bytes(b"")
    picture().save(tmp_path / "10.png")
    (tmp_path / "x.csv").write_text("")
    listed = list_photos(tmp_path)
    assert listed[:2] == [PhotoFile("2", tmp_path / "2.jpg"), PhotoFile("10", tmp_path / "10.png")]
    assert listed[2].code == "not_a_photo"
    assert read_photo(listed[0]).code == "unreadable"
    np.testing.assert_array_equal(read_photo(listed[1]).image, np.asarray(picture()))


def test_the_same_content_twice_is_one_photo(tmp_path):
    for name in ("b.jpg", "a.jpg", "c.jpg"):
        picture(seed=1 if name == "c.jpg" else 0).save(tmp_path / name)
    first, second, third = read_photos(tmp_path)
    assert isinstance(first, Photo)
    assert (second.code, second.detail) == ("duplicate", "b.jpg: same content as a.jpg")
    assert isinstance(third, Photo)


def test_masks_below_the_photos_are_no_photos(tmp_path):
    picture().save(tmp_path / "2500.jpg")
    (tmp_path / "1").mkdir()
    index_mask().convert("RGB").save(tmp_path / "1" / "02500_nose.png")
    Image.new("L", (120, 90), 255).save(tmp_path / "02500_skin.png")
    assert [item.path.name for item in read_photos(tmp_path, tmp_path)] == ["2500.jpg"]
    names = [item.path.name for item in read_photos(tmp_path)]
    assert sorted(names) == ["02500_skin.png", "1", "2500.jpg"], "without masks everything is an input"
    assert [item.path.name for item in read_photos(tmp_path, tmp_path / "1")] == ["2500.jpg", "02500_skin.png"]


def test_single_file_and_single_mask(tmp_path):
    picture().save(tmp_path / "a.jpg")
    index_mask().save(tmp_path / "other.png")
    photo = only(read_photos(tmp_path / "a.jpg", tmp_path / "other.png"))
    assert photo.name == "a"
    assert (photo.mask[10:40, 20:60] == 4).all()
    assert photo.mask.sum() == 4 * 30 * 40


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 80 * 100).reshape(80, 100).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(only(read_photos(tmp_path)).image, np.rint(values / 257)[..., None].repeat(3, 2))


def test_transparency_shows_white(tmp_path):
    pixels = np.full((80, 80, 4), (10, 20, 30, 255), np.uint8)
    pixels[:40, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = only(read_photos(tmp_path)).image
    assert (image[:40] == 255).all()
    assert (image[40:] == (10, 20, 30)).all()


def test_exif_orientation_is_applied(tmp_path):
    image = picture(80, 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    image.save(tmp_path / "a.png", exif=exif)
    photo = only(read_photos(tmp_path))
    np.testing.assert_array_equal(photo.image, np.rot90(np.asarray(image), -1))


def test_palette_mask_gives_its_indices(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    picture().save(tmp_path / "photos" / "a.jpg")
    mask = index_mask(45, 60, value=13)
    mask.putpalette([i % 256 for i in range(768)][::-1])
    assert mask.mode == "P"
    mask.save(tmp_path / "masks" / "a.png")
    photo = only(read_photos(tmp_path / "photos", tmp_path / "masks"))
    assert photo.mask.shape == (45, 60)
    assert not photo.mask.any()
    assert photo.ignore[10:40, 20:60].all(), "13 is hair"


def test_photos_and_masks_in_one_folder(tmp_path):
    picture().save(tmp_path / "0.jpg")
    index_mask().save(tmp_path / "0.png")
    picture(seed=1).save(tmp_path / "1.jpg")
    first, second = read_photos(tmp_path, tmp_path)
    assert (first.path.name, second.path.name) == ("0.jpg", "1.jpg")
    assert first.mask.max() == 4
    assert second.mask is None
    first, mask, second = read_photos(tmp_path)
    assert [first.name, second.name] == ["0.jpg", "1"]
    assert first.mask is None
    assert (mask.code, mask.detail) == (
        "not_a_photo",
        "0.png: beside a photo of that name, a PNG is taken for its mask",
    )


def test_a_mask_may_be_named_in_capitals(tmp_path):
    picture().save(tmp_path / "0.jpg")
    index_mask().save(tmp_path / "0.PNG")
    assert only(read_photos(tmp_path, tmp_path)).mask.max() == 4


def test_png_photo_is_not_its_own_mask(tmp_path):
    picture().save(tmp_path / "a.png")
    assert only(read_photos(tmp_path, tmp_path)).mask is None


def test_per_class_tree(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks" / "1").mkdir(parents=True)
    picture().save(tmp_path / "photos" / "2500.jpg")
    nose = Image.new("L", (60, 45))
    nose.paste(255, (20, 10, 30, 20))
    nose.convert("RGB").save(tmp_path / "masks" / "1" / "02500_nose.png")
    photo = only(read_photos(tmp_path / "photos", tmp_path / "masks"))
    assert photo.mask.shape == (45, 60)
    assert photo.mask.sum() == 4 * 100
    Image.new("L", (61, 45)).save(tmp_path / "masks" / "1" / "02500_skin.png")
    assert only(read_photos(tmp_path / "photos", tmp_path / "masks")).code == "mask_size"


def test_equal_stems_keep_distinct_names(tmp_path):
    picture().save(tmp_path / "a.jpg")
    picture().save(tmp_path / "a.webp")
    picture(seed=1).save(tmp_path / "b.jpg")
    assert [photo.name for photo in read_photos(tmp_path)] == ["a.jpg", "a.webp", "b"]


def test_truncated_and_foreign_files_are_unreadable(tmp_path):
    picture(300, 300).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.webp").write_text("hello")
    results = {item.path.name: item for item in read_photos(tmp_path)}
    assert isinstance(results.pop("whole.jpg"), Photo)
    for name, item in results.items():
        assert isinstance(item, Rejected)
        assert item.code == "unreadable"
        assert item.detail.startswith(name)
        assert "\n" not in item.detail


def test_small_photo(tmp_path):
    picture(50, 400).save(tmp_path / "a.png")
    item = only(read_photos(tmp_path))
    assert (item.code, item.detail) == ("too_small", "a.png: 400x50 px, the shorter side must be 64 px")
    assert isinstance(only(read_photos(tmp_path, min_side=50)), Photo)


@pytest.mark.parametrize(
    ("mask", "code", "detail"),
    [
        (index_mask(90, 90), "mask_size", "a.png: 90x90 px has other proportions than a.jpg, 120x90 px"),
        (picture(), "mask_format", "a.png: a mask has one channel of label ids, this one is RGB"),
        (index_mask(value=19), "mask_label", "a.png: label id 19 is out of range, valid ids are 0..18"),
        (index_mask(value=0), "mask_empty", "a.png: nothing but background; remove it if there is no mask"),
    ],
)
def test_bad_masks_reject_the_photo(tmp_path, mask, code, detail):
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    picture().save(tmp_path / "photos" / "a.jpg")
    mask.save(tmp_path / "masks" / "a.png")
    item = only(read_photos(tmp_path / "photos", tmp_path / "masks"))
    assert (item.code, item.detail) == (code, detail)


def test_truncated_mask_rejects_the_photo(tmp_path):
    picture().save(tmp_path / "a.jpg")
    picture().convert("L").save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    item = only(read_photos(tmp_path, tmp_path))
    assert item.code == "unreadable"
    assert item.detail.startswith("a.png")


def test_rounded_mask_size_is_accepted(tmp_path):
    picture(1001, 667).save(tmp_path / "a.jpg")
    index_mask(334, 222).save(tmp_path / "a.png")
    assert only(read_photos(tmp_path, tmp_path)).mask.shape == (334, 222)


def test_wrong_paths_fail_at_once(tmp_path):
    with pytest.raises(ValueError, match="no such photo or folder"):
        read_photos(tmp_path / "absent")
    with pytest.raises(ValueError, match="no photo in this folder"):
        read_photos(tmp_path)
    picture().save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="no such mask or folder"):
        read_photos(tmp_path, tmp_path / "absent")
    with pytest.raises(ValueError, match="is one mask, but"):
        read_photos(tmp_path, tmp_path / "a.jpg")


def test_heic_photos(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pillow_heif.register_heif_opener()
    Image.new("RGB", (128, 96), (200, 100, 50)).save(tmp_path / "a.heic")
    photo = only(read_photos(tmp_path))
    np.testing.assert_allclose(photo.image.mean((0, 1)), [200, 100, 50], atol=4)


def test_heic_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    item = only(read_photos(tmp_path))
    assert (item.code, item.detail) == ("unreadable", "a.heic: HEIC photos need pillow-heif: pip install pillow-heif")


def test_shared_photos_read_with_masks_and_recorded_hashes():
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no photos")
    data = Path(os.environ["NEO3DF_ASSETS"])
    with (data / "manifest.csv").open(newline="") as lines:
        sha256 = {row["file"]: row["sha256"] for row in csv.DictReader(lines)}
    photos = list(read_photos(data / "celebamask_maskgan", data / "celebamask_maskgan"))
    assert [photo.name for photo in photos] == ["0", "2"]
    for photo in photos:
        assert photo.image.shape == (1024, 1024, 3)
        assert photo.mask.shape == (512, 512)
        assert set(np.unique(photo.mask)) == set(range(7))
        assert photo.sha256.startswith(sha256[f"celebamask_maskgan/{photo.path.name}"])

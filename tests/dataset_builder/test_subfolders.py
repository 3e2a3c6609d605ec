"""Folders that hold no photo but subfolders of them, as FFHQ comes."""

import numpy as np
import pytest
from PIL import Image

from dataset_builder import Photo, PhotoFile, Rejected, list_photos, read_photos


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (70, 70, 3), np.uint8)).save(path)
    return path


def test_photos_of_subfolders_are_found_in_natural_order(tmp_path):
    expected = [picture(tmp_path / name) for name in ("0/2.png", "0/10.png", "9000/9001.png", "10000/10000.png")]
    assert [entry.path for entry in list_photos(tmp_path)] == expected
    assert [entry.name for entry in list_photos(tmp_path)] == ["2", "10", "9001", "10000"]


def test_what_subfolders_share_is_named_after_them(tmp_path):
    for seed, name in enumerate(("anna/1.png", "bert/1.png", "bert/2.png")):
        picture(tmp_path / name, seed)
    photos = list(read_photos(tmp_path))
    assert all(isinstance(photo, Photo) for photo in photos)
    assert [photo.name for photo in photos] == ["anna-1.png", "bert-1.png", "2"]


def test_beside_a_photo_a_subfolder_is_not_entered(tmp_path):
    picture(tmp_path / "1.png")
    picture(tmp_path / "more" / "2.png")
    first, more = list_photos(tmp_path)
    assert first == PhotoFile("1", tmp_path / "1.png")
    assert isinstance(more, Rejected)
    assert more.detail == "more: a folder; subfolders are not entered"


def test_what_is_no_photo_is_accounted_for_on_both_levels(tmp_path):
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "deep" / "2.png")
    (tmp_path / "empty").mkdir()
    for name in ("LICENSE.txt", "a/notes.txt"):
        (tmp_path / name).write_text("no photo")
    found = {entry.path.relative_to(tmp_path).as_posix(): entry for entry in list_photos(tmp_path)}
    assert {name: entry.code for name, entry in found.items() if isinstance(entry, Rejected)} == {
        "LICENSE.txt": "not_a_photo",
        "a/notes.txt": "not_a_photo",
        "a/deep": "not_a_file",
        "empty": "not_a_file",
    }
    assert found["empty"].detail == "empty: a folder without photos"


def test_the_folder_of_the_masks_is_not_entered(tmp_path):
    photo = picture(tmp_path / "00000" / "1.png")
    Image.fromarray(np.full((70, 70), 1, np.uint8)).save(picture(tmp_path / "masks" / "1.png"))
    (found,) = read_photos(tmp_path, tmp_path / "masks")
    assert found.path == photo
    assert (found.mask == 1).all()


def test_no_photo_on_either_level_is_an_error(tmp_path):
    picture(tmp_path / "a" / "b" / "1.png")
    with pytest.raises(ValueError, match="no photo in this folder"):
        list_photos(tmp_path)

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builder import Detection, Photo
from dataset_builder.photos import PHOTO_SUFFIXES as READABLE
from flows.config import parse_config
from flows.errors import UserError
from flows.real_photos import PhotoPreparer, RejectedInput
from flows.run_data import load_faces, masked_training_faces, validation_faces
from flows.sources import PHOTO_SUFFIXES, Split, digest_files, distinct_names, list_photos, split_photos
from flows.stages import STAGES


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [folder / name for name in names]


def split(photos, manifest=None, clean=None, share=0.4, seed=0):
    return split_photos(photos, manifest=manifest, clean=clean or {}, split=Split(seed, share))


def people(tmp_path, n=400):
    """Photos of n / 4 people, four each, and their manifest."""
    photos = [Path(f"{i}.jpg") for i in range(n)]
    manifest = tmp_path / "manifest.csv"
    rows = [f"some/where/{i}.jpg,{i % (n // 4)},{i % 2},{i % 3}" for i in range(n)]
    manifest.write_text("\n".join(["file,person_group,frontal,glasses", *rows]) + "\n")
    return photos, manifest


def test_a_person_is_on_one_side_of_the_split(tmp_path):
    entries = split(*people(tmp_path))
    sides = {entry.group: {other.split for other in entries if other.group == entry.group} for entry in entries}
    assert len(sides) == 100
    assert all(len(side) == 1 for side in sides.values())
    assert {entry.split for entry in entries} == {"train", "validation"}
    assert sum(side == {"validation"} for side in sides.values()) == pytest.approx(40, abs=15)


def test_the_split_moves_nobody_when_photos_are_added_and_follows_the_seed(tmp_path):
    photos, manifest = people(tmp_path)
    everybody = {entry.path: entry.split for entry in split(photos, manifest)}
    some = {entry.path: entry.split for entry in split(photos[:50], manifest)}
    assert some == {path: everybody[path] for path in some}
    assert {entry.path: entry.split for entry in split(photos, manifest, seed=1)} != everybody
    more = {entry.path: entry.split for entry in split(photos, manifest, share=0.6)}
    assert all(more[path] == "validation" for path, side in everybody.items() if side == "validation")


def test_folds_hold_everyone_once(tmp_path):
    photos, manifest = people(tmp_path)
    folds = [split_photos(photos, manifest=manifest, clean={}, split=Split(0, 0.4, 5, fold)) for fold in range(5)]
    held_out = [{entry.path for entry in entries if entry.split == "validation"} for entries in folds]
    assert sorted(path for paths in held_out for path in paths) == sorted(photos)
    assert all(40 <= len(paths) <= 120 for paths in held_out)
    for entries in folds:
        sides = {entry.group: {other.split for other in entries if other.group == entry.group} for entry in entries}
        assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": "photos", "fold": 5}, "dataset.fold is 5, expected less than n_folds, 5"),
        ({"images": "photos", "n_folds": 3, "fold": 3}, "dataset.fold is 3, expected less than n_folds, 3"),
        ({"fold": 0}, "dataset.fold is 0, expected no fold for synthetic faces: give dataset.images"),
        ({"images": "photos", "n_folds": 1}, "dataset.n_folds is 1, expected greater than or equal to 2"),
    ],
)
def test_a_fold_that_cannot_be_is_one_line(values, message):
    with pytest.raises(UserError) as caught:
        parse_config({"dataset": values})
    assert str(caught.value) == f"configuration: {message}"


def test_a_fold_is_another_dataset():
    configs = [parse_config({"dataset": {"images": str(Path(__file__)), "fold": fold}}) for fold in (None, 0, 1)]
    keys = [STAGES[0].config(config) for config in configs]
    assert keys[0] != keys[1] != keys[2]


def test_clean_photos_are_those_with_every_asked_value(tmp_path):
    photos, manifest = people(tmp_path, 12)
    clean = {e.path.name for e in split(photos, manifest, {"frontal": 1, "glasses": 0}) if e.clean}
    assert clean == {f"{i}.jpg" for i in range(12) if i % 2 == 1 and i % 3 == 0}
    entries = split([*photos, Path("stranger.jpg")], manifest, {"frontal": 1})
    assert (entries[-1].clean, entries[-1].group) == (False, "stranger")
    assert all(entry.clean for entry in split(photos))
    with manifest.open("a") as rows:
        rows.write("empty.jpg,77,,\n")
    assert not split([Path("empty.jpg")], manifest, {"frontal": 0})[0].clean


def test_a_manifest_that_lacks_something_is_named(tmp_path):
    photos, manifest = people(tmp_path, 4)
    with pytest.raises(UserError, match="'smile', which the manifest lacks; it has file, person_group, frontal, gl"):
        split(photos, manifest, {"smile": 1})
    with pytest.raises(UserError, match=r"absent\.csv does not exist; correct dataset\.manifest or leave it out"):
        split(photos, tmp_path / "absent.csv")
    manifest.write_text("name,group\n")
    with pytest.raises(UserError, match="has no column 'file'; it has name, group"):
        split(photos, manifest)
    manifest.write_text("")
    with pytest.raises(UserError, match="has no column 'file'"):
        split(photos, manifest)


def test_photos_are_listed_in_natural_order_and_masks_left_out(tmp_path):
    touch(tmp_path, "10.jpg", "9.JPG", "anna.png", "notes.txt", "9.png", "2.heic")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in list_photos(tmp_path)] == ["2.heic", "9.JPG", "10.jpg", "anna.png"]
    assert list_photos(tmp_path / "10.jpg") == [tmp_path / "10.jpg"]


def test_photos_that_can_be_read_are_listed():
    assert set(PHOTO_SUFFIXES) == set(READABLE)


def test_no_photos_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(UserError, match=r"no photographs: .*nowhere does not exist"):
        list_photos(tmp_path / "nowhere")
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=r"holds no file ending in \.jpg, \.jpeg"):
        list_photos(tmp_path)


def test_no_two_photos_get_one_name(tmp_path):
    first = touch(tmp_path / "a", "1.jpg", "1.png", "2.jpg", "3.jpg")
    second = touch(tmp_path / "b", "2.jpg", "4.jpg")
    assert distinct_names(first) == ["1.jpg", "1.png", "2", "3"]
    assert distinct_names([*first, *second]) == ["1.jpg", "1.png", "a-2.jpg", "3", "b-2.jpg", "4"]
    assert [entry.name for entry in split(first)] == ["1.jpg", "1.png", "2", "3"]
    with pytest.raises(UserError, match=r"named alike: .*4\.jpg and .*4\.jpg; leave one out"):
        distinct_names([*second, second[1]])


def test_the_digest_is_of_names_and_contents_not_of_places_and_times(tmp_path):
    first, second = touch(tmp_path / "a", "1.jpg", "2.jpg"), touch(tmp_path / "b", "1.jpg", "2.jpg")
    assert digest_files(first) == digest_files(second)
    assert len(digest_files(first)) == hashlib.sha256().digest_size * 2
    assert digest_files(first) != digest_files(first[::-1])
    second[1].write_bytes(b"other")
    assert digest_files(first) != digest_files(second)
    third = touch(tmp_path / "c", "1.jpg", "3.jpg")
    third[1].write_bytes(b"2.jpg")
    assert digest_files(first) != digest_files(third)


def test_a_changed_mask_or_manifest_changes_the_key_of_the_dataset_but_a_moved_folder_does_not(tmp_path):
    build_dataset = STAGES[0]

    def slice_of(home):
        paths = {"images": home / "images", "masks": home / "masks", "manifest": home / "manifest.csv"}
        return build_dataset.config(parse_config({"dataset": paths}))

    homes = [tmp_path / "here", tmp_path / "there"]
    for home in homes:
        touch(home / "images", "1.jpg")
        touch(home / "masks", "1.png")
        touch(home, "manifest.csv")
    assert slice_of(homes[0]) == slice_of(homes[1])
    (homes[0] / "masks" / "1.png").write_bytes(b"another mask")
    assert slice_of(homes[0]) != slice_of(homes[1])
    (homes[0] / "masks" / "1.png").write_bytes(b"1.png")
    assert slice_of(homes[0]) == slice_of(homes[1])
    (homes[0] / "manifest.csv").write_bytes(b"another manifest")
    assert slice_of(homes[0]) != slice_of(homes[1])


def test_masks_beside_the_photos_and_a_single_mask_count_too(tmp_path):
    build_dataset = STAGES[0]
    (photo, mask) = touch(tmp_path, "1.jpg", "1.png")
    for images, masks in ((tmp_path, tmp_path), (photo, mask)):
        config = parse_config({"dataset": {"images": images, "masks": masks}})
        before = build_dataset.config(config)
        mask.write_bytes(mask.read_bytes() + b"changed")
        assert build_dataset.config(config) != before


def test_faces_without_masks_are_an_error_that_says_what_to_change(tiny_run):
    faces = load_faces(tiny_run.output("build_dataset"))
    blind = replace(faces, has_mask=np.zeros(len(faces), bool))
    with pytest.raises(
        UserError, match=r"none of the 16 faces is a clean training face with a mask; give dataset\.masks"
    ):
        masked_training_faces(blind)
    unclean = replace(faces, clean=np.zeros(len(faces), bool))
    with pytest.raises(UserError, match=r"clean validation face .* or raise dataset\.validation_share"):
        validation_faces(unclean)
    assert len(validation_faces(unclean, "all")) == (faces.split == "validation").sum()


def test_another_face_model_file_under_the_same_name_changes_the_key(tmp_path):
    (path,) = touch(tmp_path, "face.npz")
    config = parse_config({"dataset": {"face_model": str(path)}})
    before = STAGES[0].config(config)
    path.write_bytes(b"another face")
    assert STAGES[0].config(config) != before


def test_a_photo_whose_face_cannot_be_aligned_is_set_aside():
    class OnePointFive:
        def detect(self, image):
            return [Detection(np.array([10.0, 10, 90, 90]), 0.9, np.full((5, 2), 40.0))]

    preparer = object.__new__(PhotoPreparer)
    preparer._detector = OnePointFive()
    photo = Photo("a", Path("a.jpg"), np.zeros((100, 100, 3), np.uint8), None, None, "")
    (entry,) = split([photo.path])
    result = preparer.prepare(photo, entry)
    assert isinstance(result, RejectedInput)
    assert result.code == "unusable"
    assert result.detail.startswith("a.jpg: ")

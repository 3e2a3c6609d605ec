import numpy as np
import pytest
from PIL import Image

from dataset_builder.alignment import CropTransform
from dataset_builder.masks import (
    BISENET_CLASSES,
    CELEBAMASK_CLASSES,
    crop_ignore,
    crop_labels,
    labels_from_class_folder,
    labels_from_index_mask,
)
from dataset_builder.parts import LABEL_IDS


def index_of(classes, *names):
    return np.array([[classes.index(name) for name in names]], np.uint8)


def test_class_orders_have_the_published_indices():
    assert len(CELEBAMASK_CLASSES) == len(set(CELEBAMASK_CLASSES)) == 19
    assert set(BISENET_CLASSES) == set(CELEBAMASK_CLASSES)
    assert [CELEBAMASK_CLASSES[i] for i in (0, 1, 2, 10, 11, 12, 18)] == [
        "background", "skin", "nose", "mouth", "u_lip", "l_lip", "cloth",
    ]  # fmt: skip
    assert [BISENET_CLASSES[i] for i in (1, 2, 3, 10, 11, 12, 13, 18)] == [
        "skin", "l_brow", "r_brow", "nose", "mouth", "u_lip", "l_lip", "hat",
    ]  # fmt: skip


@pytest.mark.parametrize("classes", [CELEBAMASK_CLASSES, BISENET_CLASSES])
def test_index_mask_maps_names_to_our_ids(classes):
    names = ("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "nose", "u_lip", "l_lip", "mouth", "neck")
    labels, ignore = labels_from_index_mask(index_of(classes, *names), classes)
    np.testing.assert_array_equal(labels, [[0, 1, 2, 2, 3, 3, 4, 5, 6, 0, 0]])
    assert labels.dtype == np.uint8
    assert not ignore.any()
    labels, ignore = labels_from_index_mask(index_of(classes, "hair", "hat", "eye_g", "cloth"), classes)
    np.testing.assert_array_equal(labels, [[0, 0, 0, 0]])
    np.testing.assert_array_equal(ignore, [[True, True, True, False]])


def test_id_out_of_range_names_id_file_and_range():
    with pytest.raises(ValueError, match=r"face\.png: label id 19 is out of range, valid ids are 0\.\.18"):
        labels_from_index_mask(np.array([[3, 19]], np.uint8), source="face.png")
    with pytest.raises(ValueError, match=r"label id -1 is out of range"):
        labels_from_index_mask(np.array([[3, -1]]))


@pytest.mark.parametrize("mask", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4))])
def test_a_mask_that_is_not_an_index_image_is_refused(mask):
    with pytest.raises(ValueError, match="an index mask is a 2D integer array"):
        labels_from_index_mask(mask)


def write_class(folder, name, box, size=(20, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    image.paste(255, box)
    image.save(folder / name)


def test_class_folder_paints_in_order_and_clears_the_inner_mouth(tmp_path):
    folder = tmp_path / "2"
    write_class(folder, "04001_skin.png", (0, 0, 20, 16))
    write_class(folder, "04001_u_lip.png", (4, 8, 12, 12))
    write_class(folder, "04001_l_lip.png", (4, 10, 12, 14))
    write_class(folder, "04001_mouth.png", (6, 10, 10, 11))
    write_class(folder, "04001_l_brow.png", (2, 2, 6, 4))
    write_class(folder, "04001_hair.png", (0, 0, 20, 3))
    labels, ignore = labels_from_class_folder(tmp_path, "4001")
    assert labels.shape == (16, 20)
    assert labels[0, 19] == LABEL_IDS["rest"]
    assert labels[2, 2] == LABEL_IDS["eyebrows"], "hair over a brow is ignored, it does not erase the brow"
    assert labels[8, 4] == LABEL_IDS["upper_lip"]
    assert labels[11, 4] == LABEL_IDS["lower_lip"], "the lower lip is painted over the upper"
    assert labels[10, 7] == LABEL_IDS["background"]
    np.testing.assert_array_equal(ignore.sum(1), [20, 20, 20] + [0] * 13)


def test_class_folder_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no mask named 7_<class>\.png"):
        labels_from_class_folder(tmp_path, "7")
    write_class(tmp_path, "portrait_skin.png", (0, 0, 5, 5))
    write_class(tmp_path, "portrait_nose.png", (0, 0, 5, 5), size=(10, 10))
    with pytest.raises(ValueError, match=r"portrait_nose|portrait_skin"):
        labels_from_class_folder(tmp_path, "portrait")


def slow_crop(labels, transform, size, samples):
    """Label by counting a fine grid of sample points in every crop pixel."""
    cropped = np.zeros((size, size), np.uint8)
    inside = (np.arange(samples) + 0.5) / samples
    height, width = labels.shape
    for row in range(size):
        for column in range(size):
            x, y = np.meshgrid((column + inside) * 224 / size, (row + inside) * 224 / size)
            photo = transform.to_photo(np.stack([x, y], -1))
            i = np.floor(photo[..., 1] * height / transform.photo_height).astype(int)
            j = np.floor(photo[..., 0] * width / transform.photo_width).astype(int)
            valid = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            found = labels[i[valid], j[valid]]
            for label in range(1, 7):
                if (found == label).sum() > samples**2 / 2:
                    cropped[row, column] = label
    return cropped


def test_crop_labels_is_exact_area_averaging():
    labels = np.random.default_rng(0).integers(0, 3, (12, 16), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    # Sampling is exact here: a mask pixel is 8 samples wide, and no mask edge falls inside a sample.
    transform = CropTransform((4.0, 4.0), (-32.0, 16.0), 48, 64)
    np.testing.assert_array_equal(crop_labels(labels, transform, 32), slow_crop(labels, transform, 32, 7))


def test_crop_labels_with_unequal_scales_and_fractions_agrees_with_sampling():
    labels = (np.add.outer(np.arange(40), 2 * np.arange(50)) // 30 % 7).astype(np.uint8)
    transform = CropTransform((2.31, 2.57), (10.3, -20.7), 80, 100)
    exact, sampled = crop_labels(labels, transform, 28), slow_crop(labels, transform, 28, 24)
    assert (exact == sampled).mean() > 0.98
    assert (exact > 0).mean() > 0.5


def test_a_half_covered_pixel_is_background():
    labels = np.full((448, 448), 4, np.uint8)
    labels[:, ::2] = 0
    assert not crop_labels(labels, CropTransform((0.5, 0.5), (0.0, 0.0), 448, 448)).any()


def test_mask_at_another_resolution_than_the_photo_gives_the_same_crop():
    coarse = np.zeros((64, 64), np.uint8)
    coarse[10:40, 20:50] = 3
    transform = CropTransform((1.7, 1.7), (30.0, 25.0), 256, 256)
    np.testing.assert_array_equal(
        crop_labels(coarse, transform), crop_labels(coarse.repeat(4, 0).repeat(4, 1), transform)
    )
    np.testing.assert_array_equal(crop_ignore(coarse == 3, transform), crop_labels(coarse, transform) == 3)


def test_crop_outside_the_photo_is_background():
    transform = CropTransform((1.0, 1.0), (-100.0, -100.0), 50, 50)
    cropped = crop_labels(np.ones((50, 50), np.uint8), transform)
    assert cropped[100:150, 100:150].all()
    assert cropped.sum() == 2500

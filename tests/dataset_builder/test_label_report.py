"""The report of a labelling, on the built-in face whose labels are known."""

import numpy as np
import pytest

from dataset_builder.label_report import label_report, vertex_areas
from dataset_builder.label_transfer import PartLabels
from dataset_builder.models import load_face_model
from dataset_builder.parts import LABEL_IDS, PARTS, REGIONS


@pytest.fixture(scope="module")
def model():
    return load_face_model("synthetic-3k")


def labelling(labels, confidence=1.0):
    none = dict.fromkeys(PARTS, 1.0)
    ballots = np.zeros((len(labels), 7), np.float32)
    ballots[np.arange(len(labels)), labels] = 1
    return PartLabels(labels, np.full(len(labels), confidence, np.float32), ballots, none, none, none)


def test_known_labels_are_whole_and_symmetric(model):
    report = label_report(model, labelling(model.labels))
    assert list(report) == list(REGIONS)
    for part in PARTS:
        assert report[part].vertices == (model.labels == LABEL_IDS[part]).sum()
        assert report[part].pieces == report[part].expected_pieces
        assert report[part].asymmetry == report[part].unsure == report[part].unseen == 0
        assert report[part].confidence == 1
    assert report["rest"].expected_pieces is None


def test_areas_add_up_to_the_surface(model):
    a, b, c = (model.mean[model.faces[:, corner]].astype(float) for corner in range(3))
    surface = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    report = label_report(model, labelling(model.labels))
    assert sum(region.area_mm2 for region in report.values()) == pytest.approx(surface)
    assert vertex_areas(model).sum() == pytest.approx(surface)
    assert 300 < report["upper_lip"].area_mm2 < 900


def test_what_is_wrong_is_told(model):
    labels = model.labels.copy()
    left = (labels == LABEL_IDS["eyes"]) & (model.mean[:, 0] > 0)
    labels[left] = LABEL_IDS["rest"]
    labels[np.argmax(model.mean[:, 1])] = LABEL_IDS["nose"]
    report = label_report(model, labelling(labels, 0.5))
    assert report["eyes"].asymmetry == 1
    assert report["eyes"].pieces == 1
    assert report["nose"].pieces == 2
    assert report["nose"].unsure == 1


def test_vertices_without_votes_are_unseen_not_unsure(model):
    found = labelling(model.labels)
    lip = np.flatnonzero(model.labels == LABEL_IDS["upper_lip"])
    found.ballots[lip[::2]] = 0
    found.confidence[lip[::2]] = 0
    report = label_report(model, found)
    assert report["upper_lip"].unseen == pytest.approx(0.5, abs=0.01)
    assert report["upper_lip"].unsure == 0
    assert report["upper_lip"].confidence == 1


def test_an_empty_part_has_no_confidence(model):
    labels = np.where(model.labels == LABEL_IDS["nose"], LABEL_IDS["rest"], model.labels)
    report = label_report(model, labelling(labels))
    assert report["nose"].vertices == report["nose"].pieces == 0
    assert np.isnan(report["nose"].confidence)


def test_labels_of_another_mesh_are_refused(model):
    with pytest.raises(ValueError, match="3 labels but the face model has"):
        label_report(model, labelling(np.ones(3, np.int64)))

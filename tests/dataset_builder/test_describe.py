import numpy as np

from dataset_builder.describe import describe_face_model
from dataset_builder.face_model import FaceModel
from dataset_builder.models import load_face_model


def test_the_built_in_face_is_described():
    model = load_face_model("synthetic-3k")
    facts = describe_face_model(model)
    assert (facts.vertices, facts.triangles) == (model.n_vertices, len(model.faces))
    assert (facts.identity_modes, facts.expression_modes, facts.albedo_modes) == (64, 8, 0)
    assert facts.optional == ("mirror", "uv", "labels")
    assert 60 < facts.eye_span_mm < 110
    assert all(80 < size < 250 for size in facts.size_mm)
    assert model.topology_hash().startswith(facts.topology)


def test_the_text_names_everything_a_user_asks_for():
    model = FaceModel(
        name="tetra",
        licence="CC-BY, cite Somebody 2020",
        mean=np.array([[-45, 0, 0], [45, 0, 0], [0, -20, 30], [0, -80, 0]], np.float32),
        id_basis=np.zeros((4, 3, 2), np.float32),
        ex_basis=np.zeros((4, 3, 5), np.float32),
        faces=np.array([[0, 2, 1]], np.int64),
        landmarks68=np.where(np.arange(68) == 8, 3, np.arange(68) % 4),
        ex_names=("a", "b", "c", "d", "e"),
        ex_range=np.zeros((5, 2), np.float32),
        albedo=np.zeros((4, 3), np.float32),
        source="tetra.h5",
    )
    lines = dict(line.split(maxsplit=1) for line in str(describe_face_model(model)).splitlines())
    assert lines["vertices"] == "4"
    assert lines["triangles"] == "1"
    assert lines["identity"] == "2 modes, standard deviations"
    assert lines["expression"] == "5 modes: a, b, c, d, ..."
    assert lines["colour"] == "-"
    assert lines["units"] == "mm; mean 90 x 80 x 30, eyes 90.0 apart"
    assert lines["licence"] == "CC-BY, cite Somebody 2020"
    assert lines["source"] == "tetra.h5"
    assert lines["also"] == "has    albedo"

import re

import numpy as np
import pygltflib
import pytest

from editing import LABEL_IDS, PART_COLOURS, part_colours
from editing.app.coloured_glb import ColouredGlb
from editing.app.colouring import (
    HEAT,
    TRANSITION,
    heat_colours,
    legend_html,
    legend_maximum,
    linear_light,
    moved_mm,
    parts_html,
    transition_colours,
)


def test_only_skin_is_shown_as_transition_area(face):
    near = np.abs(face.vertices[:, 0]) < 30
    colours = transition_colours(face.labels, near)
    green = (colours == TRANSITION).all(axis=1)
    np.testing.assert_array_equal(green, near & (face.labels == LABEL_IDS["rest"]))
    np.testing.assert_array_equal(colours[~green], part_colours(face.labels)[~green])
    assert colours.dtype == np.uint8


def test_moved_is_the_distance_in_mm():
    start = np.ones((3, 3), np.float32)
    np.testing.assert_array_equal(moved_mm([[1, 1, 1], [4, 5, 1], [1, 1, -1]], start), [0, 5, 2])


def test_heat_runs_from_the_first_colour_to_the_last_and_darkens_all_the_way():
    np.testing.assert_array_equal(heat_colours([0.0, 2.0, 7.0], 2.0), [HEAT[0], HEAT[-1], HEAT[-1]])
    np.testing.assert_array_equal(heat_colours(np.linspace(0, 1, 4), 1.0), HEAT)
    light = linear_light(heat_colours(np.linspace(0, 1, 30), 1.0)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) < 0).all()


@pytest.mark.parametrize(
    ("largest", "legend"),
    [(0, 0.1), (0.1, 0.1), (0.11, 0.2), (0.3, 0.5), (1.0, 1.0), (2.3, 5.0), (7.0, 10.0), (31, 50)],
)
def test_the_legend_ends_at_a_round_number_that_holds_everything(largest, legend):
    assert legend_maximum(np.array([0.0, largest])) == pytest.approx(legend)


def test_linear_light_of_known_greys():
    np.testing.assert_allclose(linear_light([0, 10, 188, 255]), [0, 0.003035, 0.502886, 1], atol=1e-6)


def test_legends_say_what_their_colours_mean():
    assert re.findall(r"<span>([^<]*)</span>", legend_html(5.0)) == ["0", "2.5", "5 mm"]
    for name, colour in PART_COLOURS.items():
        assert f"rgb{colour}" in parts_html(False)
        assert name.replace("_", " ") in parts_html(False)
    assert "transition area" in parts_html(True)
    assert "transition area" not in parts_html(False)


def test_the_scene_mesh_is_a_glb_with_these_vertices_and_colours(face):
    colours = part_colours(face.labels)
    written = pygltflib.GLTF2.load_from_bytes(ColouredGlb(face.faces, len(face.labels)).content(face.vertices, colours))
    attributes, blob = written.meshes[0].primitives[0].attributes, written.binary_blob()

    def array(index, dtype):
        accessor = written.accessors[index]
        view = written.bufferViews[accessor.bufferView]
        return np.frombuffer(blob[view.byteOffset : view.byteOffset + view.byteLength], dtype)

    np.testing.assert_array_equal(array(attributes.POSITION, "<f4").reshape(-1, 3), face.vertices.astype(np.float32))
    np.testing.assert_array_equal(array(attributes.COLOR_0, "<f4").reshape(-1, 3), linear_light(colours))
    np.testing.assert_array_equal(array(written.meshes[0].primitives[0].indices, "<u4").reshape(-1, 3), face.faces)
    assert array(attributes.NORMAL, "<f4").size == face.vertices.size
    assert written.accessors[attributes.POSITION].count == len(face.vertices)

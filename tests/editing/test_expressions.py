import numpy as np
import pytest

from editing import expression_morphs, expression_name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("eyeBlink_L", "eyeBlinkLeft"),
        ("mouthSmile_R", "mouthSmileRight"),
        ("jawOpen", "jawOpen"),
        ("jawLeft", "jawLeft"),
        ("blink_left", "blinkLeft"),
        ("jaw_open", "jawOpen"),
        ("JawOpen", "jawOpen"),
        ("expression_07", "ex_03"),
        ("12", "ex_03"),
        ("", "ex_03"),
    ],
)
def test_names_are_arkits_or_numbers(name, wanted):
    assert expression_name(name, 3) == wanted


def test_weight_one_is_the_full_expression():
    basis = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    morphs = expression_morphs(basis, ("jaw_open", "eyeBlink_L"), [[0, 1], [-3, 2.5]])
    assert list(morphs) == ["jawOpen", "eyeBlinkLeft"]
    np.testing.assert_array_equal(morphs["jawOpen"], basis[..., 0])
    np.testing.assert_allclose(morphs["eyeBlinkLeft"], 2.5 * basis[..., 1])
    assert not expression_morphs(np.zeros((5, 3, 0)), (), np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("names", "ranges", "message"),
    [
        (("a",), [[0, 1], [0, 1]], r"basis \(5, 3, 2\), 1 names and ranges \(2, 2\) do not fit"),
        (("a", "b"), [[0, 1], [-1, 0]], r"expression 'b' reaches to 0\.0: its greatest value must be above 0"),
        (("jaw_open", "jawOpen"), [[0, 1], [0, 1]], "expression 'jawOpen' would be a second target 'jawOpen'"),
    ],
)
def test_what_does_not_fit_is_refused(names, ranges, message):
    with pytest.raises(ValueError, match=message):
        expression_morphs(np.zeros((5, 3, 2)), names, ranges)

"""What must hold for every sequence of edits, whatever they are."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editing import CONTROLLERS_BY_REGION, PARTS, REGIONS, FaceEditor, FaceState

NAMES = [f"{region}.{c.name}" for region in REGIONS for c in CONTROLLERS_BY_REGION[region]]
names = st.sampled_from(NAMES)
sigmas = st.floats(-6, 6)
weights = st.floats(0, 1)
moves = st.floats(-30, 30)
seeds = st.integers(0, 2**32)
some_regions = st.none() | st.lists(st.sampled_from(REGIONS), unique=True)
every = settings(
    deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

edits = st.one_of(
    st.tuples(st.just("set"), names, sigmas),
    st.tuples(st.just("reset"), st.sampled_from([None, *REGIONS])),
    st.tuples(st.just("restore"), st.sampled_from([None, *REGIONS])),
    st.tuples(st.just("copy_part"), seeds, st.sampled_from(REGIONS)),
    st.tuples(st.just("blend_with"), seeds, weights, some_regions),
    st.tuples(st.just("randomise"), seeds, st.floats(0, 2), st.booleans(), some_regions),
    st.tuples(st.just("move_part"), st.sampled_from(PARTS), moves, moves),
)


@pytest.fixture
def start(bent_decoder, controllers):
    return random_face(bent_decoder, 0)


@pytest.fixture
def make_editor(bent_decoder, controllers, start):
    return lambda state=start: FaceEditor(state, bent_decoder, controllers)


def random_face(decoder, seed):
    """A face with latents, controls and offsets of its own; the offsets are float32 numbers, as networks give them."""
    rng = np.random.default_rng(seed)
    latents = {region: rng.normal(size=len(mean)) for region, mean in decoder.latent_mean.items()}
    offsets = (decoder.place(latents["rest"]) + rng.normal(size=(5, 2))).astype(np.float32)
    return FaceState.create(latents, offsets, dict(zip(NAMES, rng.uniform(-2, 2, len(NAMES)).tolist(), strict=True)))


def do(editor, decoder, edit):
    name, *arguments = edit
    if name in ("copy_part", "blend_with"):
        arguments[0] = random_face(decoder, arguments[0])
    getattr(editor, name)(*arguments)


@every
@given(wanted=st.dictionaries(names, sigmas), data=st.data())
def test_controls_set_in_any_order_give_the_same_face(wanted, data, make_editor):
    faces = []
    for _ in range(2):
        editor = make_editor()
        for name in data.draw(st.permutations(sorted(wanted))):
            editor.set(name, wanted[name])
            editor.vertices()
        faces.append(editor)
    assert faces[0].state == faces[1].state
    np.testing.assert_array_equal(faces[0].vertices(), faces[1].vertices())


@every
@given(sets=st.lists(st.tuples(names, sigmas), max_size=12))
def test_of_several_settings_of_a_control_the_last_stands(sets, make_editor):
    one, last = make_editor(), make_editor()
    for name, sigma in sets:
        one.set(name, sigma)
    for name, sigma in dict(sets).items():
        last.set(name, sigma)
    assert one.state == last.state


@every
@given(sequence=st.lists(edits, max_size=8))
def test_undo_leads_to_the_start_redo_to_the_end_and_a_new_editor_to_the_same_face(
    sequence, make_editor, bent_decoder, start
):
    editor = make_editor()
    first = editor.vertices()
    for edit in sequence:
        do(editor, bent_decoder, edit)
    end, last = editor.state, editor.vertices()
    fresh = make_editor(FaceState.from_json(editor.to_json()))
    assert fresh.state == end
    np.testing.assert_array_equal(fresh.vertices(), last)
    while editor.undo():
        pass
    assert editor.state is start
    np.testing.assert_array_equal(editor.vertices(), first)
    while editor.redo():
        pass
    assert editor.state is end
    np.testing.assert_array_equal(editor.vertices(), last)


@every
@given(order=st.permutations(REGIONS), seed=seeds)
def test_copies_of_all_regions_in_any_order_give_the_other_face(order, seed, make_editor, bent_decoder):
    other, editor = random_face(bent_decoder, seed), make_editor()
    for region in order:
        editor.copy_part(other, region)
    assert editor.state == other
    np.testing.assert_array_equal(editor.vertices(), make_editor(other).vertices())


@every
@given(order=st.permutations([(1, "nose"), (2, "rest"), (3, "upper_lip")]))
def test_copies_of_different_regions_commute(order, make_editor, bent_decoder):
    editor, sorted_editor = make_editor(), make_editor()
    for seed, region in order:
        editor.copy_part(random_face(bent_decoder, seed), region)
    for seed, region in sorted(order):
        sorted_editor.copy_part(random_face(bent_decoder, seed), region)
    assert editor.state == sorted_editor.state


@every
@given(region=st.sampled_from(REGIONS), weight=weights)
def test_taking_from_oneself_changes_nothing(region, weight, make_editor):
    editor = make_editor()
    editor.copy_part(editor.state, region)
    editor.blend_with(editor.state, weight)
    assert not editor.undo()


@every
@given(seed=seeds, regions=some_regions)
def test_blending_by_0_changes_nothing_and_by_1_gives_the_other_face(seed, regions, make_editor, bent_decoder):
    other, editor = random_face(bent_decoder, seed), make_editor()
    editor.blend_with(other, 0.0, regions)
    assert not editor.undo()
    copies = make_editor()
    for region in REGIONS if regions is None else regions:
        copies.copy_part(other, region)
    editor.blend_with(other, 1.0, regions)
    assert editor.state == copies.state
    if regions is None:
        assert editor.state == other


@every
@given(seed=st.integers(1, 1000), weight=weights)
def test_blending_is_the_same_from_either_side(seed, weight, make_editor, bent_decoder, start):
    other = random_face(bent_decoder, seed)
    editor, mirrored = make_editor(), make_editor(other)
    editor.blend_with(other, weight)
    mirrored.blend_with(start, 1 - weight)
    np.testing.assert_allclose(editor.vertices(), mirrored.vertices(), atol=1e-9)
    for region in REGIONS:
        between = (1 - weight) * start.latents[region] + weight * other.latents[region]
        np.testing.assert_allclose(editor.state.latents[region], between, atol=1e-12)


@every
@given(name=names, sigma=st.floats().filter(lambda s: not abs(s) <= 6))
def test_settings_out_of_range_are_refused_in_one_line(name, sigma, make_editor, start):
    editor = make_editor()
    with pytest.raises(ValueError, match=rf"{name} is .*: use -6 to 6") as caught:
        editor.set(name, sigma)
    assert "\n" not in str(caught.value)
    assert editor.state is start


@every
@given(name=names, data=st.data())
def test_a_misspelt_control_is_refused_with_the_right_name(name, data, make_editor):
    at = data.draw(st.integers(1, len(name) - 2))
    misspelt = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    if misspelt in NAMES:
        return
    with pytest.raises(ValueError, match="unknown control") as caught:
        make_editor().set(misspelt, 1.0)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@every
@given(name=st.text(max_size=30).filter(lambda text: text not in NAMES))
def test_any_other_name_is_refused_in_one_line(name, make_editor):
    for call in (lambda e: e.set(name, 1.0), lambda e: e.get(name), lambda e: e.set_exact(name, 30.0)):
        with pytest.raises(ValueError, match="unknown control") as caught:
            call(make_editor())
        assert "\n" not in str(caught.value)

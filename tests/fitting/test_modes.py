import numpy as np
import pytest
import torch

from fitting import LABEL_IDS, PARTS, PartModes, learn_global_modes, learn_part_modes

N = 40


def mirror_of(face):
    """The dome's grid is symmetric: 49 rows of 45 vertices."""
    return torch.arange(len(face.vertices)).view(49, 45).flip(1).flatten()


def planted(face, seed=0, n=N):
    """(n, V, 3) motion made of two known fields per part, of rms 1 and .25 mm; returns it with the fields (V, 3)."""
    generator = torch.Generator().manual_seed(seed)
    near = face.labels >= 2
    fields = torch.randn(2, len(near), 3, generator=generator) * near[None, :, None]
    moves = torch.zeros(n, len(near), 3)
    for part in PARTS:
        own = (face.labels == LABEL_IDS[part])[:, None]
        amounts = torch.randn(n, 2, generator=generator) * torch.tensor([1.0, 0.25])
        moves += torch.einsum("nk,kvc->nvc", amounts, fields * own)
    return moves


@pytest.fixture(scope="module")
def moves(face):
    return planted(face)


def rows_of(modes, part, moves):
    return moves[:, modes.vertices[part]].flatten(1), modes.of(part).flatten(1)


def test_planted_modes_are_found_in_order_of_energy(face, moves):
    modes = learn_part_modes(moves, face.labels, n_modes=3)
    assert tuple(modes.basis) == PARTS
    for part in PARTS:
        rows, basis = rows_of(modes, part, moves)
        assert torch.equal(modes.vertices[part], (face.labels == LABEL_IDS[part]).nonzero().flatten())
        coefficients = torch.linalg.lstsq(basis[:2].T, rows.T).solution
        assert float((rows - coefficients.T @ basis[:2]).abs().max()) < 1e-4
        assert modes.share[part][0] > 0.7
        assert modes.share[part][1] == pytest.approx(1, abs=1e-6)
        assert modes.energy[part] == pytest.approx(1)


def test_a_unit_is_the_root_mean_square_of_the_samples(face, moves):
    modes = learn_part_modes(moves, face.labels, n_modes=2)
    rows, basis = rows_of(modes, "nose", moves)
    coefficients = torch.linalg.lstsq(basis.T, rows.T).solution
    assert torch.allclose(coefficients.square().mean(1), torch.ones(2), atol=1e-3)
    gram = basis @ basis.T
    assert abs(float(gram[0, 1])) < 1e-4 * float(gram[0, 0]), "modes are orthogonal"


def test_a_constant_motion_is_the_first_mode(face):
    """Modes are uncentred: what every face lacks is worth a mode, and a coefficient of 1 gives it."""
    moves = torch.zeros(N, len(face.labels), 3)
    moves[:, face.labels >= 2] = torch.tensor([0.0, 1.5, 0.0])
    modes = learn_part_modes(moves, face.labels, n_modes=1)
    found = modes.displacement({part: torch.ones(1, 1) for part in PARTS})
    assert torch.allclose(found, moves[:1], atol=1e-4)


def test_mirrored_samples_make_symmetric_modes(face, moves):
    mirror = mirror_of(face)
    assert torch.equal(face.labels[mirror], face.labels)
    modes = learn_part_modes(moves, face.labels, n_modes=4, mirror=mirror)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    for k in range(4):
        shape = modes.displacement({part: torch.eye(4)[k : k + 1] for part in PARTS})[0]
        for part in PARTS:
            own = face.labels == LABEL_IDS[part]
            image = shape[mirror][own] * flip
            even, odd = (image - shape[own]).abs().max(), (image + shape[own]).abs().max()
            assert min(float(even), float(odd)) < 1e-3, f"mode {k} of {part} is neither even nor odd"


def test_what_is_explained_is_left_to_the_other_variables(face, moves):
    shifted = moves + torch.tensor([3.0, -2.0, 1.0])
    axes = {}
    for part in PARTS:
        n = int((face.labels == LABEL_IDS[part]).sum())
        axes[part] = torch.eye(3).repeat(1, n)
    modes = learn_part_modes(shifted, face.labels, n_modes=2, explained=axes)
    for part in PARTS:
        assert float(modes.of(part).mean(1).abs().max()) < 1e-5, "no mode moves the part as a whole"
    plain = learn_part_modes(shifted, face.labels, n_modes=2)
    assert all(float(plain.of(part)[0].mean(0).norm()) > 2 for part in PARTS)


def test_the_first_modes_are_the_same_as_learned_alone(face, moves):
    many, few = (learn_part_modes(moves, face.labels, n_modes=n) for n in (2, 1))
    for part in PARTS:
        assert torch.allclose(many.first(1).of(part), few.of(part), atol=1e-5)
        assert many.first(1).energy[part] == pytest.approx(few.energy[part])


def test_displacement_is_linear_local_and_differentiable(face, moves):
    modes = learn_part_modes(moves, face.labels, n_modes=2)
    weights = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    shape = modes.displacement({"eyes": weights})
    assert shape.dtype == torch.float64
    assert float(shape.detach()[:, face.labels != LABEL_IDS["eyes"]].abs().max()) == 0
    slow = sum(weights[:, k, None, None] * modes.of("eyes")[k].double() for k in range(2))
    assert torch.allclose(shape[:, face.labels == LABEL_IDS["eyes"]], slow)
    small = PartModes(6, {"a": torch.tensor([1, 4])}, {"a": torch.randn(2, 2, 3)}, {"a": np.ones(2)})
    assert torch.autograd.gradcheck(lambda c: small.displacement({"a": c}), weights)


def test_global_modes_move_everything_that_moves_at_once(face, moves):
    halo = moves.clone()
    halo[:, 0] = 1.0
    modes = learn_global_modes(halo, n_modes=10, mirror=mirror_of(face))
    moving = halo.abs().amax((0, 2)) > 0
    moving |= moving[mirror_of(face)]
    assert torch.equal(modes.vertices["whole"], moving.nonzero().flatten())
    assert modes.of("whole").shape == (10, int(moving.sum()), 3)
    flat = torch.ones(1, 3 * len(face.labels))
    without = learn_global_modes(halo, n_modes=10, explained=flat)
    assert float(without.of("whole").sum((1, 2)).abs().max()) < 1e-3


def test_modes_survive_the_disk(face, moves, tmp_path):
    modes = learn_part_modes(moves, face.labels, n_modes=3)
    modes.save(tmp_path / "modes.npz", "abc")
    modes.save(tmp_path / "modes.npz", "abc")
    assert [path.name for path in tmp_path.iterdir()] == ["modes.npz"], "no temporary file stays"
    back = PartModes.load(tmp_path / "modes.npz", "abc")
    assert back.n_vertices == modes.n_vertices
    for part in PARTS:
        assert torch.equal(back.of(part), modes.of(part))
        assert torch.equal(back.vertices[part], modes.vertices[part])
        assert np.array_equal(back.share[part], modes.share[part])
    with pytest.raises(ValueError, match=r"modes of topology abc, not xyz; learn them again"):
        PartModes.load(tmp_path / "modes.npz", "xyz")


def test_a_file_that_holds_no_modes_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("modes")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(ValueError, match="is not a file of modes"):
            PartModes.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        PartModes.load(tmp_path / "none.npz")


def test_bad_samples_are_refused(face, moves):
    with pytest.raises(ValueError, match=r"displacements have shape \(2205, 3\); expected \(N, V, 3\)"):
        learn_part_modes(moves[0], face.labels)
    broken = moves.clone()
    broken[3, 5] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity, samples \[3\]"):
        learn_part_modes(broken, face.labels)
    with pytest.raises(ValueError, match=r"labels have shape \(7,\); expected \(2205,\)"):
        learn_part_modes(moves, face.labels[:7])
    with pytest.raises(ValueError, match="no vertex is labelled nose"):
        learn_part_modes(moves, torch.where(face.labels == LABEL_IDS["nose"], 1, face.labels))
    still = moves * (face.labels != LABEL_IDS["eyes"])[None, :, None]
    with pytest.raises(ValueError, match="'eyes' does not move in any sample"):
        learn_part_modes(still, face.labels)


def test_bad_settings_are_refused(face, moves):
    for n_modes in (0, N + 1):
        with pytest.raises(ValueError, match=f"n_modes is {n_modes}; {N} samples of 'eyebrows' give between 1 and {N}"):
            learn_part_modes(moves, face.labels, n_modes=n_modes)
    with pytest.raises(ValueError, match="mirror must hold each vertex id from 0 to 2204 once"):
        learn_part_modes(moves, face.labels, mirror=torch.zeros(2205, dtype=torch.int64))
    with pytest.raises(ValueError, match="explained names chin; the groups are"):
        learn_part_modes(moves, face.labels, explained={"chin": torch.ones(1, 3)})
    with pytest.raises(ValueError, match=r"explained\['nose'\] has shape \(1, 3\); expected \(D, "):
        learn_part_modes(moves, face.labels, explained={"nose": torch.ones(1, 3)})
    with pytest.raises(ValueError, match=r"explained has shape \(1, 3\); expected \(D, 6615\)"):
        learn_global_modes(moves, explained=torch.ones(1, 3))


def test_bad_coefficients_are_refused(face, moves):
    modes = learn_part_modes(moves, face.labels, n_modes=2)
    with pytest.raises(ValueError, match="there are no coefficients"):
        modes.displacement({})
    with pytest.raises(ValueError, match="there are no modes of 'chin'"):
        modes.displacement({"chin": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match=r"coefficients of 'eyes' have shape \(1, 3\); expected \(B, 2\)"):
        modes.displacement({"eyes": torch.zeros(1, 3)})

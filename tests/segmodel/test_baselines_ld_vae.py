"""LD-VAE's reduced form against what it stands for: vertices, dense layers and loops."""

from itertools import combinations

import numpy as np
import pytest
import torch

from segmodel import REGIONS
from segmodel.baselines.ld_vae import LdNetwork, consistency_loss, ld_loss
from segmodel.baselines.swap import SwapSpace, swap_sets, swapped_grid

DIMS = (3, 3, 3, 3, 3, 5)


@pytest.fixture(scope="module")
def space(layout, shapes):
    return SwapSpace.fit(layout, shapes, np.arange(1000))


def swapped_vertices(layout, vertices, region):
    """(B, B, V, 3): face i with the interior vertices of a region taken from face j, vertex by vertex."""
    neighbours = {v: set() for v in range(layout.n_vertices)}
    for triangle in layout.faces.tolist():
        for v in triangle:
            neighbours[v].update(triangle)
    inside = [
        v
        for v in range(layout.n_vertices)
        if layout.labels[v] == region and all(layout.labels[w] == region for w in neighbours[v])
    ]
    grid = vertices[:, None].repeat(1, len(vertices), 1, 1)
    for i in range(len(vertices)):
        for j in range(len(vertices)):
            grid[i, j, inside] = vertices[j, inside]
    return grid


def label_of(k):
    return {"eyebrows": 2, "eyes": 3, "nose": 4, "upper_lip": 5, "lower_lip": 6, "rest": 1}[REGIONS[k]]


def test_the_sets_are_disjoint_and_cover_the_mesh(layout):
    ids = np.concatenate(swap_sets(layout))
    np.testing.assert_array_equal(np.sort(ids), np.arange(layout.n_vertices))


def test_coordinates_reproduce_the_faces_and_standardise_them(space, shapes):
    rows = np.arange(1000)
    reduced, vertices = space.coordinates_of(shapes)[rows], shapes.vertices(rows)
    torch.testing.assert_close(space.vertices(reduced), vertices, atol=1e-4, rtol=0)
    torch.testing.assert_close(space.coordinates(vertices), reduced, atol=2e-3, rtol=0)
    standard = (vertices.flatten(1).double() - space.mean) / space.std
    assert standard.mean(0).abs().max() < 1e-3
    assert (standard.std(0, correction=0) - 1).abs().max() < 1e-3
    assert float(reduced[rows].square().sum(1).mean()) == pytest.approx(3 * space.n_vertices, rel=1e-3)


@pytest.mark.parametrize("k", range(len(REGIONS)))
def test_swapping_a_block_is_swapping_vertices(layout, shapes, k):
    double = SwapSpace.fit(layout, shapes, np.arange(1000)).double()
    vertices = shapes.vertices(range(3)).double()
    grid = swapped_grid(double.coordinates(vertices)[None], double.blocks, torch.tensor([k]))[0]
    rebuilt = double.vertices(grid.flatten(0, 1)).view(3, 3, -1, 3)
    expected = swapped_vertices(layout, vertices, label_of(k))
    assert (expected[0, 1] - expected[0, 0]).abs().max() > 0.1
    assert (rebuilt - expected).abs().max() < 1e-4
    own = double.vertices(double.coordinates(vertices))
    assert (rebuilt - swapped_vertices(layout, own, label_of(k))).abs().max() < 1e-5


def consistency_twin(z, own, margin):
    """The two hinges for one group, latent by latent, in loops: z (B, B, D), own (D,) bool."""
    size, total = len(z), 0.0
    for a, b in combinations(range(size), 2):
        for t in range(size):
            column, row = (z[a, t] - z[b, t]) ** 2, (z[t, a] - z[t, b]) ** 2
            total += max(0.0, float(column[own].sum() - row[own].sum()) + margin)
            total += max(0.0, float(row[~own].sum() - column[~own].sum()) + margin)
    return total / (size**3 - size**2)


@pytest.mark.parametrize("size", [2, 4])
def test_consistency_equals_its_definition_in_loops(generator, size):
    z = torch.randn(3, size, size, 7, generator=generator, dtype=torch.float64)
    own = torch.tensor(
        [[True, True, False, False, False, False, False], [False] * 4 + [True] * 3, [True] + [False] * 6]
    )
    expected = np.mean([consistency_twin(z[g], own[g], 0.5) for g in range(3)])
    assert float(consistency_loss(z, own, 0.5)) == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: consistency_loss(x, own, 0.5), z.requires_grad_())


def test_perfectly_disentangled_latents_cost_nothing():
    """The region's slice depends on the column only and the rest on the row only, further apart than the margin."""
    index = torch.arange(4.0)
    z = torch.stack([index.expand(4, 4), index[:, None].expand(4, 4)], dim=-1)[None]
    own = torch.tensor([[True, False]])
    assert float(consistency_loss(z, own, 0.5)) == 0.0
    assert float(consistency_loss(z, ~own, 0.5)) > 1.0


def dense_loss(network, layout, vertices, k, noise, margin):
    """The loss of one group on vertices, with dense first and last layers, in float64."""
    v = {name: tensor.double() for name, tensor in network.state_dict().items()}
    space = network.space.double()
    basis = torch.zeros(3 * layout.n_vertices, space.rank, dtype=torch.float64)
    begin = 0
    for ids, q in space.sets:
        rows = (3 * ids[:, None] + torch.arange(3)).flatten()
        basis[rows, begin : begin + q.shape[1]] = q
        begin += q.shape[1]
    grid = swapped_vertices(layout, vertices.double(), label_of(k)).flatten(0, 1)
    x = (grid.flatten(1) - space.mean) / space.std
    relu = torch.relu
    hidden = relu(x @ (v["encoder_in.weight"] @ basis.T / v["scale"]).T + v["encoder_in.bias"])
    hidden = relu(hidden @ v["encoder_mid.weight"].T + v["encoder_mid.bias"])
    mu = hidden @ v["mu_head.weight"].T + v["mu_head.bias"]
    logvar = hidden @ v["logvar_head.weight"].T + v["logvar_head.bias"]
    z = mu + (0.5 * logvar).exp() * noise.double().flatten(0, 1)
    hidden = relu(z @ v["decoder_in.weight"].T + v["decoder_in.bias"])
    hidden = relu(hidden @ v["decoder_mid.weight"].T + v["decoder_mid.bias"])
    out = v["scale"] * (hidden @ (basis @ v["decoder_out.weight"]).T + basis @ v["decoder_out.bias"])
    adjacency = torch.zeros(layout.n_vertices, layout.n_vertices, dtype=torch.float64)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        adjacency[layout.faces[:, i], layout.faces[:, j]] = adjacency[layout.faces[:, j], layout.faces[:, i]] = 1
    laplacian = torch.eye(layout.n_vertices) - adjacency / adjacency.sum(1, keepdim=True)
    differential = torch.einsum("ij,bjc->bic", laplacian, out.view(len(out), -1, 3))
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1).mean()
    size = len(noise)
    cons = consistency_twin(z.view(size, size, -1).numpy(), network.slices[k].numpy(), margin)
    return [(out - x).square().mean(), kl, cons, differential.square().sum(2).mean()]


@pytest.mark.parametrize("k", [0, 2, 5])
def test_reduced_loss_equals_dense_loss_on_swapped_vertices(layout, shapes, generator, k):
    torch.manual_seed(k)
    space = SwapSpace.fit(layout, shapes, np.arange(1000))
    network = LdNetwork(space, DIMS, scale=7.0).double().requires_grad_(False)
    noise = torch.randn(1, 4, 4, sum(DIMS), generator=generator)
    vertices = space.vertices(space.coordinates(shapes.vertices(range(4)).double()))  # in the float32 basis, exactly
    smoothness = SwapSpace.fit(layout, shapes, np.arange(1000)).double().smoothness(layout).double()
    coordinates = space.coordinates(vertices)[None]
    terms = ld_loss(network, coordinates, torch.tensor([k]), smoothness, noise.double())
    expected = dense_loss(network, layout, vertices, k, noise[0], 0.5)
    for (name, value), truth in zip(terms.terms().items(), expected, strict=True):
        assert float(value) == pytest.approx(float(truth), rel=1e-6), name

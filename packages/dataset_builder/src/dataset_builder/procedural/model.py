"""`build_procedural_face`: the built-in morphable face, made of formulas, with exact part labels.

Random people are drawn from the identity parameters and summarised by principal components, so the result is an
ordinary linear :class:`FaceModel` whose identity coefficients are N(0, 1).
"""

import numpy as np
from numpy.typing import NDArray

from ..face_model import FaceModel
from .chart import Chart
from .expressions import expression_basis
from .handles import Warp
from .height import HeightFields
from .identity import interactions, parameter_basis, sample_parameters
from .mesh import CanonicalMesh, build_mesh, front_areas, label_triangles
from .outlines import build_outlines

Array = NDArray[np.floating]
Int64 = NDArray[np.int64]

N_MODES = 64
N_PEOPLE = 2000
_SHRINK = 0.85
_LICENCE = (
    "Apache-2.0 (generated; average proportions after Yan et al. 2022, "
    "depths calibrated on ICT-FaceKit, Li et al. 2020, MIT)"
)

_EYE_68 = ((40.8, 26.4), (34.5, 30.2), (24.5, 30.2), (18.3, 25.6), (24.5, 24.3), (34.5, 24.0))
_BROW_68 = ((52.7, 41.4), (46.6, 46.5), (36.0, 49.0), (27.0, 48.5), (17.6, 46.6))
_MOUTH_TOP_68 = ((23.5, -33.2), (15.0, -28.7), (6.0, -26.4), (0.0, -27.5))
_MOUTH_LOW_68 = ((15.0, -38.1), (8.0, -40.1), (0.0, -40.5))
_MOUTH_LINE_68 = ((20.5, -33.2), (8.0, -33.2), (0.0, -33.6))
_JAW_TOP = 14.0


def build_procedural_face(n_vertices: int = 6000, seed: int = 0, spread: float = 1.0) -> FaceModel:
    """Build the procedural face.

    Args:
        n_vertices: wanted number of vertices, 1,000 to 60,000; the result is within 3 percent.
        seed: of the mesh and of the people the identity modes summarise.
        spread: factor on how much people differ; 1 follows the spread of measured faces.

    Returns:
        Face model with 64 identity modes, the expressions of ``expressions.EXPRESSIONS`` (each in [0, 1]), part labels,
        mirror map, uv and the canonical point of every vertex in ``chart``. The mouth is open along the slit: the upper
        and the lower lip own a vertex each there, at the same place in every neutral face.

    Raises:
        ValueError: for a number of vertices or a spread out of range.
    """
    if not 1000 <= n_vertices <= 60_000:
        raise ValueError(f"n_vertices is {n_vertices}, must be between 1000 and 60000")
    if not 0 < spread <= 2:
        raise ValueError(f"spread is {spread}, must be above 0 and at most 2")
    outlines = build_outlines()
    chart = Chart(outlines.rim)
    mesh = build_mesh(outlines, chart, n_vertices, seed)
    fields = HeightFields(mesh.points, outlines, chart)
    warp = Warp(mesh.points)
    average = np.column_stack([mesh.points, fields.mean()])
    mean, id_basis = _identity_modes(average, fields, warp, mesh, seed, spread)
    below = mesh.points[:, 1] < outlines.mouth_height(mesh.points[:, 0]) - 1e-3
    below[mesh.slit] = True
    expressions = expression_basis(fields, warp, below)
    return FaceModel(
        name=f"synthetic-{len(mesh.points)}",
        licence=_LICENCE,
        mean=mean.astype(np.float32),
        id_basis=id_basis.astype(np.float32),
        ex_basis=expressions.basis.astype(np.float32),
        faces=mesh.faces,
        landmarks68=_landmarks(mesh, outlines.rim.points),
        ex_names=expressions.names,
        ex_range=np.tile(np.array([0, 1], np.float32), (len(expressions.names), 1)),
        mirror=mesh.mirror,
        uv=chart.uv(mesh.points),
        labels=mesh.vertex_labels,
        chart=mesh.points.astype(np.float32),
    )


def triangle_labels(model: FaceModel) -> Int64:
    """Exact part id (F,) of every triangle of a procedural face (no triangle crosses an outline).

    Raises:
        ValueError: for a face model without canonical points.
    """
    if model.chart is None:
        raise ValueError(
            f"face model {model.name!r} has no canonical points; triangle labels exist for built-in faces only"
        )
    return label_triangles(build_outlines(), model.chart[model.faces].mean(1).astype(float))


def front_valid(model: FaceModel, vertices: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether (...,) shapes (..., V, 3) show the front of every triangle to a viewer on +z (no folds, lips apart)."""
    return np.asarray((front_areas(vertices, model.faces) > 0).all(-1))


def valid_identity(model: FaceModel, identity: NDArray[np.floating], max_shrinks: int = 20) -> NDArray[np.float32]:
    """Identity coefficients (N, Ni), those of folded faces shrunk by 0.85 towards the mean until the face is valid."""
    identity = np.array(identity, np.float32)
    rows = np.arange(len(identity))
    for _ in range(max_shrinks):
        rows = np.array([k for k in rows if not front_valid(model, model.shape(identity[k]))], np.int64)
        if not len(rows):
            return identity
        identity[rows] *= _SHRINK
    raise ValueError(f"{len(rows)} identities stay folded after {max_shrinks} shrinks; is this a procedural face?")


def _valid_parameters(parameters: Array, basis: Array, average: Array, faces: Int64, block: int = 64) -> Array:
    """Parameters whose face is valid, the few others shrunk towards the average."""
    parameters = parameters.copy()
    plane = [(average[:, k, None].astype(np.float32), basis[:, :, k].T.astype(np.float32)) for k in range(2)]
    a, b, c = faces.T
    for start in range(0, len(parameters), block):
        rows = np.arange(start, min(start + block, len(parameters)))
        while len(rows):
            x, y = (origin + moves @ parameters[rows].T.astype(np.float32) for origin, moves in plane)
            xa, ya = x[a], y[a]
            area = (x[b] - xa) * (y[c] - ya) - (y[b] - ya) * (x[c] - xa)
            rows = rows[(area <= 0).any(0)]
            parameters[rows] *= _SHRINK
    return parameters


def _identity_modes(
    average: Array, fields: HeightFields, warp: Warp, mesh: CanonicalMesh, seed: int, spread: float
) -> tuple[Array, Array]:
    """Mean (V, 3) and principal components (V, 3, 64), each per standard deviation, of random people.

    A person is ``scale * (average + parameters @ basis + products @ modes)``: all people lie in the span of a few dozen
    vectors, in which the principal components are found without ever holding the people's vertices.
    """
    basis = parameter_basis(fields, warp, seed) * spread
    parameters = _valid_parameters(sample_parameters(N_PEOPLE, seed), basis, average, mesh.faces)
    scale, products, modes = interactions(fields, parameters)
    span = np.concatenate([average[None], basis, modes]).reshape(1 + len(basis) + len(modes), -1)
    weights = scale[:, None] * np.column_stack([np.ones(len(parameters)), parameters, products])
    centre = weights.mean(0)
    _, size, rows = np.linalg.svd((weights - centre) / np.sqrt(len(weights)), full_matrices=False)
    factor = size[:, None] * rows @ span
    variance, axes = np.linalg.eigh(factor @ factor.T)
    kept = np.argsort(variance)[::-1][:N_MODES]
    components = axes[:, kept].T @ factor
    components *= np.sign(components[np.arange(len(kept)), np.abs(components).argmax(1)])[:, None]
    mean = (centre @ span).reshape(average.shape)
    return mean, components.T.reshape(*average.shape, len(kept))


def _landmarks(mesh: CanonicalMesh, rim: Array) -> Int64:
    """Vertices of the 68 landmarks: the nearest to their canonical points, mostly outline vertices."""
    below = rim[rim[:, 1] <= _JAW_TOP]
    length = np.insert(np.linalg.norm(np.diff(below, axis=0), axis=1).cumsum(), 0, 0.0)
    at = np.linspace(0, length[-1], 9)
    jaw = np.column_stack([np.interp(at, length, below[:, k]) for k in range(2)])

    def right(points: tuple[tuple[float, float], ...] | Array) -> Array:
        return np.asarray(points, float) * [-1, 1]

    def left(points: tuple[tuple[float, float], ...] | Array) -> Array:
        return np.asarray(points, float)

    nose = np.array(
        [(0, 27), (0, 17), (0, 7), (0, -3.7), (-13, -12.4), (-6.5, -12.8), (0, -13.6), (6.5, -12.8), (13, -12.4)]
    )
    eye = np.array(_EYE_68)
    points = np.concatenate([
        right(jaw), left(jaw[-2::-1]), right(_BROW_68), left(_BROW_68[::-1]), nose,
        right(eye), left(eye[[3, 2, 1, 0, 5, 4]]),
        right(_MOUTH_TOP_68), left(_MOUTH_TOP_68[-2::-1]), left(_MOUTH_LOW_68), right(_MOUTH_LOW_68[-2::-1]),
        right(_MOUTH_LINE_68), left(_MOUTH_LINE_68[-2::-1]), left(_MOUTH_LINE_68[1:]), right(_MOUTH_LINE_68[1:2]),
    ])  # fmt: skip
    original = np.setdiff1d(np.arange(len(mesh.points)), mesh.slit)
    distance = np.linalg.norm(points[:, None] - mesh.points[original], axis=2)
    ids = original[distance.argmin(1)]
    below_slit = dict(zip(mesh.slit_twins.tolist(), mesh.slit.tolist(), strict=True))
    ids[65:] = [below_slit.get(i, i) for i in ids[65:].tolist()]
    return ids.astype(np.int64)

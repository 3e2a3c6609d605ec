"""`FaceModel`, a linear morphable face: what every loader returns and every estimator takes."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FaceModel:
    """Linear morphable face: ``shape = mean + id_basis @ identity + ex_basis @ expression``, in millimetres.

    Axes: +x to the subject's left, +y up, +z out of the face (Blanz and Vetter 1999 for the linear model).

    Attributes:
        name: short name, as given to :func:`load_face_model`.
        licence: licence of the face data, and whom to cite.
        mean: (V, 3) float32, mm.
        id_basis: (V, 3, Ni) float32, mm per standard deviation; identity coefficients are N(0, 1).
        ex_basis: (V, 3, Ne) float32, mm per unit of expression; Ne may be 0.
        faces: (F, 3) int64, 0-based, counter-clockwise seen from outside.
        landmarks68: (68,) int64 vertex ids in Multi-PIE order (0-based: 0..16 jaw, 17..26 brows, 27..35 nose,
            36..47 eyes, 48..67 lips; low numbers on the image left, the subject's right).
        ex_names: Ne names of the expressions.
        ex_range: (Ne, 2) float32, least and greatest sensible value of each expression.
        mirror: (V,) int64, the vertex on the other side of the face, or None when unknown.
        uv: (V, 2) float32 texture coordinates in [0, 1], v up, or None.
        labels: (V,) int64 known part labels (truth of built-in faces), or None.
        chart: (V, 2) float32 canonical point of a procedural face, in mm, or None.
        albedo: (V, 3) float32 mean skin colour, sRGB in [0, 1], or None.
        albedo_basis: (V, 3, Na) float32, sRGB per standard deviation of a colour mode, or None; needs ``albedo``.
        source: the files and the publication the numbers come from; empty for a built-in face.
    """

    name: str
    licence: str
    mean: Float32
    id_basis: Float32
    ex_basis: Float32
    faces: Int64
    landmarks68: Int64
    ex_names: tuple[str, ...] = ()
    ex_range: Float32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    mirror: Int64 | None = None
    uv: Float32 | None = None
    labels: Int64 | None = None
    chart: Float32 | None = None
    albedo: Float32 | None = None
    albedo_basis: Float32 | None = None
    source: str = ""

    def __post_init__(self) -> None:
        v = len(self.mean)
        if self.mean.shape != (v, 3) or self.id_basis.shape[:2] != (v, 3) or self.ex_basis.shape[:2] != (v, 3):
            raise ValueError(
                f"face model {self.name!r}: mean {self.mean.shape}, id_basis {self.id_basis.shape} and ex_basis "
                f"{self.ex_basis.shape} must be (V, 3), (V, 3, Ni) and (V, 3, Ne) with the same V"
            )
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or self.faces.min() < 0 or self.faces.max() >= v:
            raise ValueError(f"face model {self.name!r}: faces must be (F, 3) with ids in 0..{v - 1}")
        if self.landmarks68.shape != (68,) or self.landmarks68.min() < 0 or self.landmarks68.max() >= v:
            raise ValueError(f"face model {self.name!r}: landmarks68 must be 68 vertex ids in 0..{v - 1}")
        if len(self.ex_names) != self.ex_basis.shape[2] or len(self.ex_range) != self.ex_basis.shape[2]:
            raise ValueError(f"face model {self.name!r}: ex_names and ex_range must have {self.ex_basis.shape[2]} rows")
        for what, shape in (("mirror", (v,)), ("labels", (v,)), ("uv", (v, 2)), ("chart", (v, 2)), ("albedo", (v, 3))):
            values = getattr(self, what)
            if values is not None and values.shape != shape:
                raise ValueError(f"face model {self.name!r}: {what} has shape {values.shape}, expected {shape}")
        if self.mirror is not None and (self.mirror.min() < 0 or self.mirror.max() >= v):
            raise ValueError(f"face model {self.name!r}: mirror must name vertices in 0..{v - 1}")
        if self.albedo_basis is not None and (self.albedo is None or self.albedo_basis.shape[:2] != (v, 3)):
            raise ValueError(f"face model {self.name!r}: albedo_basis must be ({v}, 3, Na) and come with an albedo")
        for what in ("mean", "id_basis", "ex_basis", "albedo", "albedo_basis"):
            values = getattr(self, what)
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"face model {self.name!r}: {what} holds a value that is not finite")

    @property
    def n_vertices(self) -> int:
        """Number of vertices V."""
        return len(self.mean)

    @property
    def n_identity(self) -> int:
        """Number of identity modes Ni."""
        return self.id_basis.shape[2]

    @property
    def n_expression(self) -> int:
        """Number of expressions Ne."""
        return self.ex_basis.shape[2]

    @property
    def n_albedo(self) -> int:
        """Number of colour modes Na."""
        return 0 if self.albedo_basis is None else self.albedo_basis.shape[2]

    def shape(self, identity: NDArray[np.floating], expression: NDArray[np.floating] | None = None) -> Float32:
        """Vertices (..., V, 3) float32 in mm for identity (..., Ni) and, if given, expression (..., Ne)."""
        vertices = self.mean + _combine(self.id_basis, identity, "identity")
        if expression is not None and self.n_expression:
            vertices = vertices + _combine(self.ex_basis, expression, "expression")
        return vertices.astype(np.float32)

    def colours(self, texture: NDArray[np.floating] | None = None) -> Float32:
        """Skin colours (..., V, 3) float32, sRGB in [0, 1], for colour coefficients (..., Na), or of the mean face.

        Raises:
            ValueError: the model has no colours, or not that many modes.
        """
        if self.albedo is None:
            raise ValueError(f"face model {self.name!r} has no colours")
        if texture is None:
            return self.albedo.clip(0, 1)
        if self.albedo_basis is None:
            raise ValueError(f"face model {self.name!r} has a mean colour but no colour modes")
        return (self.albedo + _combine(self.albedo_basis, texture, "colour")).clip(0, 1).astype(np.float32)

    def sample(self, n: int, seed: int) -> Float32:
        """Identity coefficients (n, Ni) float32 of random faces, N(0, 1) clipped at 3 standard deviations."""
        return np.random.default_rng(seed).standard_normal((n, self.n_identity)).clip(-3, 3).astype(np.float32)

    def topology_hash(self) -> str:
        """SHA-256 (hex) of the triangles and the number of vertices: two meshes share it iff labels carry over."""
        digest = hashlib.sha256(f"{self.n_vertices}:".encode())
        digest.update(np.ascontiguousarray(self.faces, dtype="<i8").tobytes())
        return digest.hexdigest()


def _combine(basis: Float32, coefficients: NDArray[np.floating], what: str) -> Float32:
    v, _, n = basis.shape
    weights = np.asarray(coefficients, np.float32)
    if weights.shape[-1] != n:
        raise ValueError(f"{what} coefficients have {weights.shape[-1]} values, this face model has {n}")
    return (weights @ basis.reshape(v * 3, n).T).reshape(*weights.shape[:-1], v, 3)

"""What a face model is, in a few lines to read."""

from dataclasses import dataclass

import numpy as np

from .face_model import FaceModel


@dataclass(frozen=True)
class FaceModelDescription:
    """Facts about a face model; ``str()`` of it is a table for the terminal.

    Attributes:
        name, licence, source: as in the model; ``source`` is "built in" for the procedural face.
        vertices, triangles, identity_modes, expression_modes, albedo_modes: counts.
        expressions: names of the expressions.
        size_mm: width, height and depth of the mean face.
        eye_span_mm: distance between the outer eye corners of the mean face.
        optional: which of mirror, uv, labels and albedo the model has.
        topology: first 12 characters of the topology hash.
    """

    name: str
    vertices: int
    triangles: int
    identity_modes: int
    expression_modes: int
    albedo_modes: int
    expressions: tuple[str, ...]
    size_mm: tuple[float, float, float]
    eye_span_mm: float
    optional: tuple[str, ...]
    topology: str
    licence: str
    source: str

    def __str__(self) -> str:
        width, height, depth = self.size_mm
        names = ", ".join(self.expressions[:4]) + (", ..." if len(self.expressions) > 4 else "")
        rows = (
            ("face model", self.name),
            ("vertices", f"{self.vertices:,}"),
            ("triangles", f"{self.triangles:,}"),
            ("identity", f"{self.identity_modes} modes, standard deviations"),
            ("expression", f"{self.expression_modes} modes" + (f": {names}" if names else "")),
            ("colour", f"{self.albedo_modes} modes" if self.albedo_modes else "-"),
            ("landmarks", "68, Multi-PIE"),
            ("also has", ", ".join(self.optional) or "-"),
            ("units", f"mm; mean {width:.0f} x {height:.0f} x {depth:.0f}, eyes {self.eye_span_mm:.1f} apart"),
            ("axes", "+x subject's left, +y up, +z out of the face"),
            ("topology", self.topology),
            ("licence", self.licence),
            ("source", self.source),
        )
        return "\n".join(f"{key:<11} {value}" for key, value in rows)


def describe_face_model(model: FaceModel) -> FaceModelDescription:
    """Vertices, triangles, modes, size, units, licence and source of a face model."""
    right, left = model.mean[model.landmarks68[[36, 45]]]
    width, height, depth = (float(extent) for extent in np.ptp(model.mean, axis=0))
    optional = tuple(name for name in ("mirror", "uv", "labels", "albedo") if getattr(model, name) is not None)
    return FaceModelDescription(
        name=model.name,
        vertices=model.n_vertices,
        triangles=len(model.faces),
        identity_modes=model.n_identity,
        expression_modes=model.n_expression,
        albedo_modes=model.n_albedo,
        expressions=model.ex_names,
        size_mm=(width, height, depth),
        eye_span_mm=float(np.linalg.norm(left - right)),
        optional=optional,
        topology=model.topology_hash()[:12],
        licence=model.licence,
        source=model.source or "built in",
    )

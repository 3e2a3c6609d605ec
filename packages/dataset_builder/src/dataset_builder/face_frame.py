"""Is this mesh a face in our frame? Units, axes and winding of face models that others made."""

import numpy as np
from numpy.typing import NDArray

from .face_model import FaceModel, Int64

_EYE_SPAN_MM = (55.0, 140.0)
_RIGHT_CANTHUS, _LEFT_CANTHUS, _NOSE_TIP, _CHIN = 36, 45, 30, 8


def outward_faces(faces: Int64, vertices: NDArray[np.floating]) -> Int64:
    """Triangles (F, 3) with the winding that runs counter-clockwise from outside, all turned or none.

    The sign of the volume between the surface and a point behind it decides; this holds for an open face mask, whose
    back is missing, and for a closed head alike.
    """
    behind = [*vertices[:, :2].mean(0), vertices[:, 2].min()]
    a, b, c = (vertices[faces[:, k]].astype(np.float64) - behind for k in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c))
    return faces if volume >= 0 else np.ascontiguousarray(faces[:, ::-1])


def require_face_frame(model: FaceModel, source: str) -> FaceModel:
    """The model itself, if its mean is a face in millimetres that looks along +z with +y up.

    Raises:
        ValueError: the outer eye corners are not 55 to 140 mm apart (wrong units), or nose, chin and eyes do not lie
            as the axes have it (wrong axes, or landmarks in another order).
    """
    right, left, nose, chin = model.mean[model.landmarks68[[_RIGHT_CANTHUS, _LEFT_CANTHUS, _NOSE_TIP, _CHIN]]]
    span = float(np.linalg.norm(left - right))
    if not _EYE_SPAN_MM[0] <= span <= _EYE_SPAN_MM[1]:
        raise ValueError(
            f"{source}: the outer eye corners are {span:.3g} mm apart, expected {_EYE_SPAN_MM[0]:.0f} to "
            f"{_EYE_SPAN_MM[1]:.0f}; the file has other units, or its landmarks are not the 68 of Multi-PIE"
        )
    eyes = (left + right) / 2
    wrong = [
        text
        for holds, text in (
            (left[0] > right[0], "the subject's left eye is not at +x"),
            (eyes[1] > chin[1], "the eyes are not above the chin in +y"),
            (nose[2] > eyes[2], "the nose is not before the eyes in +z"),
        )
        if not holds
    ]
    if wrong:
        raise ValueError(
            f"{source}: {' and '.join(wrong)}; turn the face to +x left, +y up, +z out, or check the landmarks"
        )
    return model

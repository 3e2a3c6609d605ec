"""The 68 landmarks of face models that name a few points only."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .assets import user_cache
from .face_model import Int64
from .procedural import cached_procedural_face

_LEAST_ANCHORS = 6
_FARTHEST_MM = 40.0
_THINNEST_MM = 5.0
_N_TEMPLATE = 3_000  # vertices of the built-in face, as asked for


def landmarks_from_named_points(
    points: Mapping[int, NDArray[np.floating]], vertices: NDArray[np.floating], source: str
) -> Int64:
    """The 68 vertex ids of a face of which only some landmarks are known.

    The landmarks of the built-in face are carried over by a thin-plate spline (Bookstein 1989) that takes its named
    points to the given ones; each becomes the nearest vertex. From the 12 points that Basel's files name, the ICT
    face's own landmarks are met within 1.4 mm at the eyes and 1.6 at the lips on average, 4 at the brows and 10 at the
    jaw: enough to fit by, but a landmark file made by hand is better.

    Args:
        points: landmark number (0..67) to its position (3,), mm.
        vertices: (V, 3) mean of the face, mm.
        source: what to name in an error.

    Raises:
        ValueError: fewer than 6 points are known, or they do not fix a face on this mesh.
    """
    from scipy.interpolate import RBFInterpolator  # takes half a second to import

    if len(points) < _LEAST_ANCHORS:
        raise ValueError(
            f"{source}: only {len(points)} of the 68 landmarks are named, at least {_LEAST_ANCHORS} needed"
        )
    ids = sorted(points)
    known = np.array([points[i] for i in ids], np.float64)
    built_in = cached_procedural_face(_N_TEMPLATE, user_cache())
    template = built_in.mean[built_in.landmarks68].astype(np.float64)
    thinnest = np.linalg.svd(template[ids] - template[ids].mean(0), compute_uv=False)[-1] / np.sqrt(len(ids))
    if thinnest < _THINNEST_MM:
        raise ValueError(f"{source}: the named landmarks do not fix a face, they lie nearly in a plane")
    carried = RBFInterpolator(template[ids], known, kernel="thin_plate_spline")(template)
    distance, nearest = cKDTree(vertices).query(carried)
    if distance.max() > _FARTHEST_MM:
        raise ValueError(
            f"{source}: the named landmarks put others {distance.max():.0f} mm from the surface; give all 68 in a file"
        )
    return nearest.astype(np.int64)

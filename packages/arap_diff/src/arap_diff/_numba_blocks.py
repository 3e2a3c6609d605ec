"""Rotation fit and its adjoint on arrays of 3 x 3 matrices, compiled; twin of `_numpy_kernels`.

A block (16, BLOCK) holds BLOCK matrices, its row 4 r + c their entries (r, c); rows 3, 7 and from 11 on mean nothing.
"""

import numpy as np
from numba import njit

from arap_diff import _numpy_kernels
from arap_diff._numba_lanes import Vector, all_less, load, repeat8, store, where_less
from arap_diff._numba_rotations import Nine, adjoint, fit, rotation_of
from arap_diff.mesh import FloatArray

BLOCK = 8  # matrices that are fitted at a time


@njit
def load_block(block: FloatArray, like: Vector) -> Nine:
    """The matrices of a block."""
    return (
        load(block, 0 * BLOCK, like),
        load(block, 1 * BLOCK, like),
        load(block, 2 * BLOCK, like),
        load(block, 4 * BLOCK, like),
        load(block, 5 * BLOCK, like),
        load(block, 6 * BLOCK, like),
        load(block, 8 * BLOCK, like),
        load(block, 9 * BLOCK, like),
        load(block, 10 * BLOCK, like),
    )


@njit
def store_block(matrices: Nine, block: FloatArray) -> None:
    """The inverse of `load_block`."""
    store(block, 0 * BLOCK, matrices[0])
    store(block, 1 * BLOCK, matrices[1])
    store(block, 2 * BLOCK, matrices[2])
    store(block, 4 * BLOCK, matrices[3])
    store(block, 5 * BLOCK, matrices[4])
    store(block, 6 * BLOCK, matrices[5])
    store(block, 8 * BLOCK, matrices[6])
    store(block, 9 * BLOCK, matrices[7])
    store(block, 10 * BLOCK, matrices[8])


@njit
def fit_block(covariance: FloatArray, quaternion: FloatArray) -> bool:
    """Fit the matrices of a block into quaternion (4, BLOCK); the hard ones get NaN, and False is returned."""
    w, x, y, z, trusted = fit(load_block(covariance, repeat8(0.0)))
    zero = 0.0 * trusted
    store(quaternion, 0 * BLOCK, where_less(zero, trusted, w, zero / zero))
    store(quaternion, 1 * BLOCK, x)
    store(quaternion, 2 * BLOCK, y)
    store(quaternion, 3 * BLOCK, z)
    return all_less(zero, trusted)


@njit
def rotate_block(quaternion: FloatArray, rotation: FloatArray) -> None:
    """Rotation matrices, as a block, of quaternion (4, BLOCK)."""
    one = repeat8(1.0)
    w, x = load(quaternion, 0 * BLOCK, one), load(quaternion, 1 * BLOCK, one)
    y, z = load(quaternion, 2 * BLOCK, one), load(quaternion, 3 * BLOCK, one)
    store_block(rotation_of((w, x, y, z)), rotation)


@njit
def _fill_block(matrices: FloatArray, start: int, block: FloatArray) -> None:
    """Matrices from `start` of (N, 9) as a block; zeros beyond the last."""
    for k in range(BLOCK):
        for entry in range(9):
            value = matrices[start + k, entry] if start + k < matrices.shape[0] else 0.0
            block[4 * (entry // 3) + entry % 3, k] = value


@njit(cache=True, nogil=True)
def _fit_all(covariance: FloatArray) -> FloatArray:
    """Quaternions (N, 4) of covariance (N, 9); NaN for the hard ones."""
    result = np.empty((covariance.shape[0], 4))
    block, quaternion = np.empty((16, BLOCK)), np.empty((4, BLOCK))
    for start in range(0, covariance.shape[0], BLOCK):
        _fill_block(covariance, start, block)
        fit_block(block, quaternion)
        for k in range(min(BLOCK, covariance.shape[0] - start)):
            for entry in range(4):
                result[start + k, entry] = quaternion[entry, k]
    return result


@njit(cache=True, nogil=True)
def rotations_of(quaternion: FloatArray) -> FloatArray:
    """Rotation matrices (N, 3, 3) of unit quaternions (N, 4)."""
    rotation = np.empty((quaternion.shape[0], 3, 3))
    for k in range(quaternion.shape[0]):
        r = rotation_of((quaternion[k, 0], quaternion[k, 1], quaternion[k, 2], quaternion[k, 3]))
        for entry in range(9):
            rotation[k, entry // 3, entry % 3] = r[entry]
    return rotation


def fit_quaternions(covariance: FloatArray) -> FloatArray:
    """Unit quaternions (N, 4) of `fit_rotations`."""
    quaternion: FloatArray = _fit_all(covariance.reshape(-1, 9))
    hard = np.isnan(quaternion[:, 0])
    if hard.any():
        by_svd = _numpy_kernels.fit_rotations(covariance[hard])
        quaternion[hard] = _fit_all(by_svd.reshape(-1, 9))
    return quaternion


def fit_rotations(covariance: FloatArray) -> FloatArray:
    """See `_numpy_kernels.fit_rotations`."""
    rotation: FloatArray = rotations_of(fit_quaternions(covariance))
    return rotation


@njit(cache=True, nogil=True)
def rotation_adjoint(covariance: FloatArray, rotation: FloatArray, rotation_bar: FloatArray) -> FloatArray:
    """See `_numpy_kernels.rotation_adjoint`."""
    result = np.empty_like(covariance)
    s, r, r_bar, one = np.empty((16, BLOCK)), np.empty((16, BLOCK)), np.empty((16, BLOCK)), repeat8(1.0)
    for start in range(0, covariance.shape[0], BLOCK):
        _fill_block(covariance.reshape(-1, 9), start, s)
        _fill_block(rotation.reshape(-1, 9), start, r)
        _fill_block(rotation_bar.reshape(-1, 9), start, r_bar)
        store_block(adjoint(load_block(s, one), load_block(r, one), load_block(r_bar, one)), s)
        for k in range(min(BLOCK, covariance.shape[0] - start)):
            for entry in range(9):
                result[start + k, entry // 3, entry % 3] = s[4 * (entry // 3) + entry % 3, k]
    return result

"""Differentiable as-rigid-as-possible deformation of triangle meshes."""

from arap_diff.mesh import laplacian, mesh_edges
from arap_diff.rotations import fit_rotations
from arap_diff.solver import ArapSolver, arap_deform

__all__ = ["ArapSolver", "arap_deform", "fit_rotations", "laplacian", "mesh_edges"]

"""What does a deformation cost with what is installed here: numba if it is there, NumPy and SciPy alone otherwise?

python benchmarks/arap_tier.py, in any environment with arap_diff; tests/isolated.sh runs it without numba and with it.
"""

import importlib.util

from arap_contenders import Ours
from arap_measure import Cost, run
from arap_meshes import bumpy_sphere


def main() -> None:
    tier = "numba" if importlib.util.find_spec("numba") else "NumPy and SciPy"
    case = bumpy_sphere(10_000)
    print(f"{tier}, {len(case.rest):,} vertices, four solves, processor time:")
    for energy in ("bilaplacian", "edges"):
        contender, forward, backward = Ours(case, energy=energy, backend="auto"), Cost(), Cost()
        run(contender)  # compiles
        for _ in range(10):
            deformed = forward.time(contender.forward)
            backward.time(lambda c=contender, x=deformed: c.backward(x))
        print(f"{energy:12} forward {forward.cpu:6.1f} ms   backward {backward.cpu:6.1f} ms")


if __name__ == "__main__":
    main()

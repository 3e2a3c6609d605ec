"""How long does the import of each package take, beside that of the library it cannot do without?

python benchmarks/import_time.py [--repeats 7] [--quick]

Each import is timed in a new interpreter, packages and their libraries in turn; the median counts. "own" is what the
package adds to the import of everything it needs.
"""

import argparse
import os
import statistics
import subprocess
import sys

BASES = {
    "editing": ("numpy", "scipy.spatial", "PIL.Image", "pygltflib"),
    "arap_diff": ("torch", "scipy.sparse.linalg"),
    "dataset_builder": ("torch", "scipy.spatial", "PIL.Image"),
    "segmodel": ("torch", "scipy.sparse.linalg", "safetensors.torch"),
    "fitting": ("torch", "scipy.ndimage", "numba"),
    "flows": (),
    "flows.stages": ("pydantic", "yaml"),
    "flows.cli": ("typer",),
}
TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def import_seconds(modules: tuple[str, ...]) -> float:
    """Wall time of importing the modules in a new interpreter."""
    code = TIMED.format(f"import {', '.join(modules)}" if modules else "pass")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="once each")
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else arguments.repeats
    measured = {("numpy",), ("torch",), *BASES.values(), *((package,) for package in BASES)}
    measured |= {(*libraries, package) for package, libraries in BASES.items()}
    seconds: dict[tuple[str, ...], list[float]] = {each: [] for each in measured if each}
    for modules in seconds:
        import_seconds(modules)  # reads the files once
    for _ in range(repeats):
        for modules, times in seconds.items():
            times.append(import_seconds(modules))
    median = {modules: statistics.median(times) for modules, times in seconds.items()}
    numpy, torch = median["numpy",], median["torch",]
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    print(f"Python {sys.version.split()[0]}, OMP_NUM_THREADS {threads}, median of {repeats}")
    print(f"numpy {numpy:.2f} s, torch {torch:.2f} s\n")
    print("| import | s | of numpy | of torch | own, s | beyond |\n|---|---|---|---|---|---|")
    for package, libraries in BASES.items():
        whole = median[package,]
        own = median[(*libraries, package)] - (median[libraries] if libraries else 0.0)
        needed = ", ".join(libraries) or "-"
        print(f"| {package} | {whole:.2f} | {whole / numpy:.1f} | {whole / torch:.2f} | {own:.2f} | {needed} |")


if __name__ == "__main__":
    main()

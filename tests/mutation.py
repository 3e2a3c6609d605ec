"""Would the tests notice if a numeric core were wrong? Changes one operator or constant at a time and runs the tests.

python tests/mutation.py packages/arap_diff/src/arap_diff/mesh.py tests/arap_diff/test_laplacian.py [TEST ...]
    [--sample 40] [--seed 0] [--line 60] [--jobs 1] [--list]

A mutant swaps an arithmetic or comparison operator, `and` and `or`, or the ends of a conditional, drops a minus or a
`not`, or changes a number or a truth value. It is killed if the tests fail, or take more than three times as long as
without it. Printed are the mutants that survive; some are equivalent to the original, and judged by hand. The working
tree is not touched: the package is copied, and the copy comes first on the path. A mutant of a file with compiled
kernels gets an empty compiler cache, so that nothing compiled before hides a change: allow for the compilation.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
QUIET = (ast.Raise, ast.Assert, ast.JoinedStr, ast.arg, ast.Import, ast.ImportFrom)
"""What is left alone with everything below: the words of errors, annotations, imports."""


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, what it was and became, and the whole changed file."""

    line: int
    before: str
    after: str
    source: str


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Every mutant of one node alone; deep copies, so that the tree stays as it is."""
    match node:
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) | ast.BoolOp(op=operator):
            for other in SWAPS.get(type(operator), ()):
                mutant = copy.deepcopy(node)
                mutant.op = other()  # type: ignore[attr-defined]
                yield mutant
        case ast.Compare(ops=[operator]):
            for other in SWAPS.get(type(operator), ()):
                mutant = copy.deepcopy(node)
                mutant.ops = [other()]
                yield mutant
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield copy.deepcopy(operand)
        case ast.IfExp():
            mutant = copy.deepcopy(node)
            mutant.body, mutant.orelse = mutant.orelse, mutant.body
            yield mutant
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield ast.Constant(value * 2 if value else 1.0)


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every node that may change, with its parent, field and index there."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "slice") and not isinstance(node, ast.Subscript):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST) and not isinstance(child, QUIET):
                yield node, name, index if isinstance(value, list) else None, child
                yield from places(child)


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for parent, name, index, node in list(places(tree)):
        for mutant in changed(node):
            holder = getattr(parent, name)
            if index is None:
                setattr(parent, name, mutant)
            else:
                holder[index] = mutant
            ast.fix_missing_locations(tree)
            found.append(Mutant(getattr(node, "lineno", 0), ast.unparse(node), ast.unparse(mutant), ast.unparse(tree)))
            if index is None:
                setattr(parent, name, node)
            else:
                holder[index] = node
    return sorted(found, key=lambda each: each.line)


def passes(tests: list[str], package: Path, caches: Path, limit_s: float | None) -> bool:
    """Whether the tests pass with this copy of the package first on the path, within the limit."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(caches),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        try:
            return running.wait(limit_s) == 0
        except subprocess.TimeoutExpired:
            running.kill()
            return False


class Bench:
    """A copy of the package at a path of its own, where one mutant after the other takes the file's place.

    The path stays, so that what numba has compiled of other files is found again.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        package = path.parent
        while (package.parent / "__init__.py").is_file():
            package = package.parent
        self.package = folder / package.name
        self.caches = folder / "cache"
        self.file = self.package / path.relative_to(package)
        shutil.copytree(package, self.package, ignore=shutil.ignore_patterns("__pycache__"))

    def passes(self, source: str, tests: list[str], limit_s: float | None) -> bool:
        """Whether the tests pass with this source in the file's place."""
        self.file.write_text(source, encoding="utf-8")
        if "njit" not in source:
            return passes(tests, self.package, self.caches, limit_s)
        with tempfile.TemporaryDirectory() as caches:
            return passes(tests, self.package, Path(caches), limit_s)


def survivors(mutants: list[Mutant], benches: list[Bench], tests: list[str], limit_s: float) -> Iterator[Mutant]:
    """Those that the tests do not notice, in order, as many at a time as there are benches."""
    free: Queue[Bench] = Queue()
    for bench in benches:
        free.put(bench)

    def survives(mutant: Mutant) -> bool:
        bench = free.get()
        try:
            return bench.passes(mutant.source, tests, limit_s)
        finally:
            free.put(bench)

    with ThreadPoolExecutor(len(benches)) as pool:
        for mutant, survived in zip(mutants, pool.map(survives, mutants), strict=True):
            if survived:
                yield mutant


def main() -> None:
    """Run a sample of the mutants and print what survives; status 1 if fewer than --least are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("tests", nargs="*", help="what pytest is given")
    parser.add_argument("--sample", type=int, help="how many mutants, drawn by the seed; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--line", type=int, help="of this line only")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--least", type=float, default=0.8, help="share that must be killed")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    arguments = parser.parse_intermixed_args()
    path = arguments.file.resolve()
    mutants = [each for each in mutants_of(path) if arguments.line in (None, each.line)]
    if arguments.sample is not None and arguments.sample < len(mutants):
        mutants = sorted(random.Random(arguments.seed).sample(mutants, arguments.sample), key=lambda each: each.line)
    if arguments.list:
        for each in mutants:
            print(f"{path.name}:{each.line}: {each.before}  ->  {each.after}")
        return
    with tempfile.TemporaryDirectory() as name:
        benches = [Bench(path, Path(name) / str(job)) for job in range(arguments.jobs)]
        started = time.perf_counter()
        unchanged = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
        if not all(bench.passes(unchanged, arguments.tests, None) for bench in benches):
            raise SystemExit("the tests fail without any change")
        limit_s = max(30.0, 3 * (time.perf_counter() - started) / len(benches))
        print(f"{path.name}: {len(mutants)} mutants, at most {limit_s:.0f} s each", flush=True)
        survived = 0
        for each in survivors(mutants, benches, arguments.tests, limit_s):
            survived += 1
            print(f"survived {path.name}:{each.line}: {each.before}  ->  {each.after}", flush=True)
    share = 1 - survived / max(1, len(mutants))
    print(f"{path.name}: {len(mutants) - survived} of {len(mutants)} killed, {share:.0%}")
    if share < arguments.least:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

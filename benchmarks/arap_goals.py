"""The goals set for `arap_diff`, held against what `arap.py` measured.

One thread has one core, so its processor time is what the wall clock would show on a machine without other users.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Times = Callable[[str, str], float]  # ms of (contender, step)


@dataclass(frozen=True)
class Goal:
    """A number that `value` takes from the times on a mesh, and the side of the `bound` on which it should be."""

    title: str
    value: Callable[[Times], float]
    at_least: float | None = None
    at_most: float | None = None
    threads: tuple[int, ...] = (1, 2)
    meshes: tuple[str, ...] = ("sphere", "transition", "face")

    def bound(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    def verdict(self, value: float) -> str:
        if self.at_least is None and self.at_most is None:
            return ""
        met = value >= self.at_least if self.at_least is not None else value <= self.at_most
        return " met" if met else " NOT met"


def faster_than(peer: str, ours: str) -> Callable[[Times], float]:
    return lambda ms: ms(peer, "forward") / ms(ours, "forward")


def with_gradient(peer: str, ours: str) -> Callable[[Times], float]:
    return lambda ms: (ms(peer, "forward") + ms(peer, "backward")) / (ms(ours, "forward") + ms(ours, "backward"))


def backward_share(ours: str) -> Callable[[Times], float]:
    return lambda ms: ms(ours, "backward") / ms(ours, "forward")


def batch_share(ours: str, step: str) -> Callable[[Times], float]:
    return lambda ms: ms(f"{ours}, batch of 8", step) / 8 / ms(ours, step)


BILAPLACIAN, EDGES, SAME_AS_IGL = "numba bilaplacian", "numba edges", "numba edges, cotangent"

GOALS = (
    Goal("forward: libigl / edges, cotangent", faster_than("libigl, cotangent", SAME_AS_IGL), 2.5, threads=(1,)),
    Goal("forward: libigl / edges, cotangent", faster_than("libigl, cotangent", SAME_AS_IGL), 5.0, threads=(2,)),
    Goal("forward: Open3D (factors each time) / edges, cotangent", faster_than("Open3D, cotangent", SAME_AS_IGL), 13.0),
    Goal(
        "the same, our factor counted too",
        lambda ms: ms("Open3D, cotangent", "forward") / (ms(SAME_AS_IGL, "factor") + ms(SAME_AS_IGL, "forward")),
    ),
    Goal("forward: dense twin f32 / bilaplacian", faster_than("dense twin f32", BILAPLACIAN), 50.0),
    Goal("forward + backward: dense twin f32 / bilaplacian", with_gradient("dense twin f32", BILAPLACIAN)),
    Goal("forward: tuned dense twin f32 / bilaplacian", faster_than("dense twin f32, tuned", BILAPLACIAN)),
    Goal("forward + backward: tuned dense twin f32 / bilaplacian", with_gradient("dense twin f32, tuned", BILAPLACIAN)),
    Goal("backward / forward, bilaplacian", backward_share(BILAPLACIAN), at_most=1.1),
    Goal("backward / forward, edges", backward_share(EDGES), at_most=1.1),
    Goal("the same where the rest is fixed, bilaplacian", backward_share(f"{BILAPLACIAN}, rest fixed"), at_most=1.1),
    Goal("the same where the rest is fixed, edges", backward_share(f"{EDGES}, rest fixed"), at_most=1.1),
    Goal(
        "per face of 8 / alone, forward, bilaplacian",
        batch_share(BILAPLACIAN, "forward"),
        at_most=0.6,
        meshes=("face",),
    ),
    Goal("per face of 8 / alone, forward, edges", batch_share(EDGES, "forward"), at_most=0.6, meshes=("face",)),
    Goal("per face of 8 / alone, backward, bilaplacian", batch_share(BILAPLACIAN, "backward"), meshes=("face",)),
    Goal("per face of 8 / alone, backward, edges", batch_share(EDGES, "backward"), meshes=("face",)),
    Goal("forward, bilaplacian, ms", lambda ms: ms(BILAPLACIAN, "forward"), at_most=4.0, meshes=("transition",)),
    Goal("forward, edges, ms", lambda ms: ms(EDGES, "forward"), at_most=4.0, meshes=("transition",)),
    Goal(
        "forward, libigl, ms (15 when the goals were set)",
        lambda ms: ms("libigl, cotangent", "forward"),
        meshes=("transition",),
    ),
    Goal("forward: numpy / numba, bilaplacian", faster_than("numpy bilaplacian", BILAPLACIAN)),
)


def print_goals(results: dict[str, dict[str, Any]]) -> None:
    """One line per goal, one column per mesh and thread count; a dash where a peer could not run or no goal was set."""
    print(f"\n{'ratios: processor times of 1 thread, wall times of 2':60}{'goal':>8}", end="")
    print("".join(f"{f'{mesh}, {threads} thr':>20}" for mesh in results for threads in (1, 2)))
    for goal in GOALS:
        cells = [_cell(goal, mesh, results[mesh], threads) for mesh in results for threads in (1, 2)]
        if any(cell != "-" for cell in cells):
            print(f"{goal.title:60}{goal.bound():>8}" + "".join(f"{cell:>20}" for cell in cells))


def _cell(goal: Goal, mesh: str, measured: dict[str, Any], threads: int) -> str:
    costs, clock = measured[str(threads)]["costs"], "cpu" if threads == 1 else "wall"
    if mesh not in goal.meshes or threads not in goal.threads:
        return "-"
    try:
        value = goal.value(lambda name, step: costs[name][step][clock])
    except KeyError:
        return "-"
    return f"{value:.2f}{goal.verdict(value)}"

"""The command line ``neo3df``: each command reads its options, calls one function, and prints what came out.

Only light modules are imported here, so that ``neo3df --help`` answers at once.
"""

import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import environment
from .errors import AnotherFailed, UserError

if TYPE_CHECKING:
    from .config import RunConfig
    from .pipeline import Stage

app = typer.Typer(
    help="Faces from photographs, made of parts that can be edited: data, training, fitting and reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class TaskRunner(StrEnum):
    """Where shards run."""

    thread = "thread"
    process = "process"
    dask = "dask"


Config = Annotated[Path | None, typer.Option("--config", "-c", help="configuration file; default: the demo preset")]
Only = Annotated[list[str] | None, typer.Option(help="run this stage and what it needs; may be repeated")]
Refresh = Annotated[list[str] | None, typer.Option(help="make this stage again; may be repeated")]
From = Annotated[str | None, typer.Option("--from", help="make this stage and all that depend on it again")]
ARun = Annotated[Path, typer.Argument(help="run folder")]
Where = Annotated[TaskRunner, typer.Option("--runner", help="where shards run")]
Workers = Annotated[int, typer.Option(min=1, help="shards at once")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="with --runner dask: address of a Dask scheduler, tcp://host:8786 (or NEO3DF_DASK_SCHEDULER)"),
]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be repeated")]
RunDir = Annotated[Path | None, typer.Option(help="run folder, instead of the configuration's")]
Run = Annotated[Path | None, typer.Option("--run", help="run folder with trained models")]
Host = Annotated[str, typer.Option(help="address to listen on; any but the default lets other machines in")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="port to listen on, or the next free one")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="open the page in a browser")]
Output = Annotated[Path, typer.Option("-o", "--out", help="where the result goes")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error, and Prefect's log")] = False,
) -> None:
    """Options before the command."""
    environment.prepare(debug=debug)


@app.command()
def demo(
    runner: Where = TaskRunner.thread,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    overrides: Set = None,
    run_dir: RunDir = None,
) -> None:
    """Synthetic faces, data to report, offline: the packaged demo configuration."""
    config = _config(None, overrides, run_dir)
    _bring(config, _tasks(runner, scheduler), workers)


@app.command()
def run(
    config: Config = None,
    only: Only = None,
    refresh: Refresh = None,
    begin: From = None,
    runner: Where = TaskRunner.thread,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    overrides: Set = None,
    run_dir: RunDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run")] = False,
) -> None:
    """Bring every stage of a configuration up to date."""
    resolved = _config(config, overrides, run_dir)
    if dry_run:
        from .console import print_plan
        from .pipeline import Pipeline
        from .stages import STAGES

        print_plan(Pipeline(STAGES, resolved, only=only or (), refresh=refresh or (), begin=begin).plan())
        return
    _bring(resolved, _tasks(runner, scheduler), workers, only=only or (), refresh=refresh or (), begin=begin)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="stage name")],
    config: Config = None,
    runner: Where = TaskRunner.thread,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    overrides: Set = None,
    run_dir: RunDir = None,
) -> None:
    """Make one stage again and nothing else; what it needs must be finished."""
    tasks = _tasks(runner, scheduler)
    _bring(_config(config, overrides, run_dir), tasks, workers, only=[name], refresh=[name], alone=True)


@app.command()
def reconstruct(
    photos: Annotated[list[Path], typer.Argument(help="photographs, or folders of them")],
    out: Output,
    masks: Annotated[Path | None, typer.Option(help="folder of parsing masks, matched by file stem")] = None,
    run: Run = None,
) -> None:
    """Photographs to editable faces: per photo a folder with mesh, overlay, labels and face.json."""
    from .reconstruct import reconstruct as reconstruct_photos

    reconstruct_photos(photos, out=out, masks=masks, run_dir=run)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="run folder, or those of several folds, which are pooled")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="HTML file; default: RUN/report.html")] = None,
) -> None:
    """Write tables and figures as one self-contained HTML page, and each table as Markdown and CSV beside it."""
    from .report import publish, write_report

    if out is None and len(runs) > 1:
        raise UserError(f"{len(runs)} runs in one report: say with -o which HTML file to write")
    print(write_report(runs, out) if out else publish(runs[0])[0])


@app.command()
def inspect(
    run: ARun,
    photo: Annotated[str | None, typer.Option(help="what became of this photograph (face_id or file name)")] = None,
) -> None:
    """Show a run's stages, rows, sizes, times and versions, or one photograph's way through it."""
    from .console import print_lineage, print_summaries
    from .inspect import lineage, summarise

    if photo is None:
        print_summaries(summarise(run))
    else:
        print_lineage(lineage(run, photo))


@app.command()
def verify(run: ARun) -> None:
    """Find every missing, truncated or altered file of a run, and say what mends it; exit status 1 if there is one."""
    from .console import print_damages
    from .verify import verify_run

    damages = verify_run(run)
    print_damages(damages)
    if damages:
        raise typer.Exit(1)


@app.command()
def gc(
    run: ARun,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Remove what no manifest of a run names: outputs of older configurations, and what a kill left behind."""
    from .console import print_garbage
    from .gc import collect_garbage, find_garbage

    print_garbage(find_garbage(run) if dry_run else collect_garbage(run), dry_run=dry_run)


@app.command()
def export(
    face: Annotated[Path, typer.Argument(help="face.json of a reconstructed or edited face")],
    out: Output,
) -> None:
    """Write a face as .obj, .ply, .stl, or .glb with named morph targets."""
    from .face_file import export_face

    print(export_face(face, out))


@app.command()
def edit(
    face: Annotated[Path | None, typer.Argument(help="face.json; default: the mean face of the run")] = None,
    run: Run = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    browser: Browser = True,
) -> None:
    """Edit a face in the browser: sliders, exact values, heat map, export. Nothing leaves this machine."""
    from .edit import serve_face

    with serve_face(face, run_dir=run, host=host, port=port, open_browser=browser) as server:
        print(f"{server.url}  (Ctrl+C ends it)", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="synthetic, synthetic-3k, synthetic-35k, ict, bfm, or a file or folder")],
) -> None:
    """Describe a face model: vertices, modes, units, licence."""
    from dataset_builder import describe_face_model, load_face_model

    print(describe_face_model(load_face_model(name)))


@app.command()
def assets(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="list what this configuration needs, photographs included")
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="download what is missing and may be fetched")] = False,
) -> None:
    """List weights and face models: what exists, where it is looked for, licence and hash.

    With a configuration only what it needs; exit status 1 if something of that is missing.
    """
    from .assets_table import print_assets, print_needed

    if config is None:
        print_assets(fetch)
    elif print_needed(config, fetch):
        raise typer.Exit(1)


def main() -> None:
    """The console script: mistakes of the user end in one line and exit status 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(args=["--debug", *arguments] if debug else arguments, prog_name="neo3df")
    except (UserError, ValueError, OSError, ImportError) as error:
        if debug:
            raise
        if isinstance(error, AnotherFailed):
            sys.exit(2)  # the process that failed first has said why
        print(f"neo3df: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _config(path: Path | None, overrides: list[str] | None, run_dir: Path | None) -> "RunConfig":
    from .config import load_config
    from .presets import preset

    config = load_config(path or preset("demo"), overrides or ())
    return config if run_dir is None else config.model_copy(update={"run_dir": run_dir})


def _tasks(runner: TaskRunner, scheduler: str | None) -> str:
    """Where shards run, as the runner takes it: a name, or a scheduler's address."""
    if scheduler is None:
        return runner.value
    if runner is not TaskRunner.dask:
        raise UserError(f"--scheduler {scheduler} needs --runner dask")
    return scheduler


def _bring(config: "RunConfig", tasks: str, workers: int, **selection: Any) -> None:
    """Run the pipeline and say what came out; under torchrun the first process does, and the others help it train."""
    from .stages import STAGES
    from .torchrun import joined

    team = joined()
    if team is None:
        _execute(STAGES, config, tasks, workers, **selection)
    elif team.rank > 0:
        team.follow(STAGES, config)
    else:
        with team.leading(STAGES) as stages:
            _execute(stages, config, tasks, workers, **selection)


def _execute(stages: "Sequence[Stage]", config: "RunConfig", tasks: str, workers: int, **selection: Any) -> None:
    from .console import print_headline, print_stages
    from .pipeline import Pipeline
    from .progress import make_progress

    def prefect() -> Any:
        from .prefect_runner import PrefectRunner

        return PrefectRunner(tasks, workers)

    began = time.monotonic()
    outcomes = Pipeline(stages, config, progress=make_progress(), **selection).execute(prefect)
    print_stages(outcomes, time.monotonic() - began)
    for outcome in outcomes:
        if outcome.name == "evaluate":
            from .report import publish

            print_headline(outcome.folder)
            print("\n".join(str(path) for path in publish(Path(config.run_dir))))


if __name__ == "__main__":
    main()

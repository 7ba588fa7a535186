"""The commands. They parse, call and print; what they do lies elsewhere.

Exit codes: 0 done, 1 failed, 2 wrong usage or config.
"""

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.errors import BessemerError, ConfigError, RaisedElsewhere
from bessemer.recipe import load_recipe
from bessemer.runner.executors import LOCAL, check_place
from bessemer.runner.layout import RunFolder
from bessemer.runner.lineage import describe_lineage, trace
from bessemer.runner.predict import predict
from bessemer.runner.progress import reporter_for
from bessemer.runner.references import (
    RUNS_FOLDER,
    all_runs,
    artifacts_in_order,
    find_artifact,
    find_model,
    find_run,
)
from bessemer.runner.run import dry_run, run_recipe
from bessemer.runner.status import describe_run, run_status, stale_note
from bessemer.runner.summary import describe_dry_run, describe_results
from bessemer.stages import imported

app = typer.Typer(
    name="bessemer",
    help="Train a language model from end to end, from one recipe.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RunsFolder = Annotated[Path, typer.Option("--runs-folder", help="Folder that holds the run folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="RUN:STAGE, RUN, or a model folder.")]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Override a value.")
    ] = None,
    from_stage: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Redo this stage and all after it.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")
    ] = None,
    is_dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done and why, and predict yield, time and memory."),
    ] = False,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="PLACE",
            help="Where processes of curation and training run: local, ray or ray:ADDRESS.",
        ),
    ] = LOCAL,
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """Bring a run up to date with a recipe: skip what is done, continue what was cut short."""
    if _takes_part():
        imported("bessemer.training.parallel.torchrun:serve")(load_recipe(recipe, settings or []))
        return
    resolved = load_recipe(recipe, settings or [])
    folder = runs_folder / resolved.name
    reporter = reporter_for(sys.stderr if is_dry or as_json else sys.stdout)
    for remark in resolved.remarks():
        reporter.say(f"note: {remark}")
    if is_dry:
        dry = predict(resolved, folder, dry_run(resolved, folder, from_stage, until), reporter, on)
        _dismiss()
        if as_json:
            _print_json(dry.to_json())
        else:
            typer.echo(describe_dry_run(dry))
        raise typer.Exit(1 if dry.is_damaged else 0)
    try:
        results = run_recipe(resolved, folder, reporter, from_stage, until, on)
        _dismiss()
    except KeyboardInterrupt:
        again = "the same command without --from" if from_stage else "the same command"
        typer.echo(f"\nStopped. Finished work is kept: {again} continues from here.", err=True)
        raise typer.Exit(1) from None
    if as_json:
        _print_json([result.to_json() for result in results])
    else:
        typer.echo("\n" + describe_results(RunFolder(folder), results))


def _takes_part() -> bool:
    """Whether torchrun has started this process, and another of them runs the recipe."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0"


def _dismiss() -> None:
    """Under torchrun: let the other processes end."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        imported("bessemer.training.parallel.torchrun:dismiss")()


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Default: every run.")] = None,
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """How far runs are: every stage, its time, size and digest."""
    runs = [find_run(run, runs_folder)] if run else all_runs(runs_folder)
    statuses = [run_status(each) for each in runs]
    if as_json:
        documents = [each.to_json() for each in statuses]
        _print_json(documents[0] if run else documents)
    else:
        typer.echo("\n\n".join(map(describe_run, statuses)) or f"no runs in {runs_folder}")


@app.command()
def lineage(
    artifact: Annotated[
        str, typer.Argument(metavar="RUN[:STAGE]", help="An artifact; default: the run's newest.")
    ],
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """What an artifact was made from, down to the pages; every link is checked (1 if one is broken)."""
    chosen = find_artifact(artifact, (), runs_folder)
    of_run = {each.stage: each for each in artifacts_in_order(RunFolder(chosen.folder.parent))}
    tree = trace(chosen, of_run)
    if as_json:
        _print_json(tree.to_json() | {"is_sound": tree.is_sound})
    else:
        typer.echo(describe_lineage(tree))
    raise typer.Exit(0 if tree.is_sound else 1)


@app.command()
def why(
    run: Annotated[str, typer.Argument(metavar="RUN[:STAGE]")],
    document: Annotated[str, typer.Argument(help="Document id, the beginning of one, or a URL.")],
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """Why a document was kept or dropped: every value and edit, its duplicates, and where it ended."""
    explanation = imported("bessemer.curate.why:explain")(_documents(run, runs_folder), document)
    if as_json:
        _print_json(explanation)
    else:
        typer.echo(imported("bessemer.curate.why_text:format_explanation")(explanation))


@app.command()
def whatif(
    run: Annotated[str, typer.Argument(metavar="RUN[:STAGE]")],
    settings: Annotated[
        list[str], typer.Argument(metavar="RULE.max=VALUE|RULE=off …", help="Other bounds, on or off.")
    ],
    limit: Annotated[int, typer.Option("--limit", min=0, help="Documents to list; 0 lists all.")] = 10,
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """What other rule settings would keep and drop, from the ledger alone."""
    folder = _documents(run, runs_folder)
    answer = imported("bessemer.curate.whatif:what_if")(folder, settings, limit or None)
    if as_json:
        _print_json(answer)
    else:
        typer.echo(imported("bessemer.curate.whatif_text:format_what_if")(answer))


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="RUN_A[:STAGE]")],
    after: Annotated[str, typer.Argument(metavar="RUN_B[:STAGE]")],
    limit: Annotated[int, typer.Option("--limit", min=0, help="Documents to list; 0 lists all.")] = 10,
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """What two runs kept and dropped differently, and which settings and values differ."""
    folders = _documents(before, runs_folder), _documents(after, runs_folder)
    answer = imported("bessemer.curate.diff:compare")(*folders, limit or None)
    if as_json:
        _print_json(answer)
    else:
        typer.echo(imported("bessemer.curate.diff_text:format_comparison")(answer, (before, after)))


@app.command()
def review(
    run: Annotated[str, typer.Argument(metavar="RUN[:STAGE]")],
    seed: Annotated[int, typer.Option("--seed", help="Another seed shows other samples.")] = 0,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """Write a page to review the curation by: funnel, histograms, samples, edits, duplicates."""
    typer.echo(imported("bessemer.curate.review:write_review")(_documents(run, runs_folder), seed=seed))


@app.command()
def report(
    run: Run,
    as_json: AsJson = False,
    every: Annotated[
        float | None,
        typer.Option("--every", metavar="SECONDS", min=1, help="Refresh the page while the run is at work."),
    ] = None,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """Write the run's report page, or print its numbers as JSON."""
    folder = find_run(run, runs_folder).root
    if as_json:
        _print_json(imported("bessemer.export.report:report_json")(folder))
    elif every is not None:
        typer.echo(imported("bessemer.export.report:follow_report")(folder, every))
    else:
        typer.echo(imported("bessemer.export.report:write_report")(folder))


@app.command()
def chat(model: Model, runs_folder: RunsFolder = RUNS_FOLDER) -> None:
    """Talk with a model in the terminal."""
    folder = find_model(model, runs_folder)
    if note := stale_note(folder):
        typer.echo(f"note: {note}", err=True)
    imported("bessemer.inference.chat:chat")(folder)


@app.command()
def export(
    model: Model,
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="Where to.")],
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """Copy a model out of its run, checked."""
    typer.echo(imported("bessemer.export.command:export_model")(find_model(model, runs_folder), to))


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; must not exist.")],
) -> None:
    """Make a model folder of a GGUF file, to start from or to chat with."""
    typer.echo(imported("bessemer.inference.gguf:unpack_gguf")(file, folder))


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Also examine a model.")] = None,
    is_parallel: Annotated[
        bool, typer.Option("--parallel", help="Also compare every layout of processes with one process.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option("--processes", min=2, help="Of --parallel; default: 2, then 4.")
    ] = None,
    on: Annotated[
        str, typer.Option("--on", metavar="PLACE", help="Of --parallel: local, ray or ray:ADDRESS.")
    ] = LOCAL,
    as_json: AsJson = False,
    runs_folder: RunsFolder = RUNS_FOLDER,
) -> None:
    """Examine this machine, and a model: each check with its outcome and how to mend (1 if one fails)."""
    if _takes_part():
        imported("bessemer.training.parallel.torchrun:serve")()
        return
    check_place(on)
    checks = imported("bessemer.doctor:examine_machine")(runs_folder)
    if model is not None:
        checks += imported("bessemer.doctor_model:examine_model")(find_model(model, runs_folder))
    if is_parallel:
        reporter = reporter_for(sys.stderr if as_json else sys.stdout)
        examine = imported("bessemer.doctor_parallel:examine_parallel")
        checks += examine(processes, reporter, on, runs_folder)
    _dismiss()
    if as_json:
        _print_json([check.to_json() for check in checks])
    else:
        typer.echo("\n".join(str(check) for check in checks))
    raise typer.Exit(1 if any(check.outcome == "fail" for check in checks) else 0)


def main() -> None:
    """Entry point: faults that the user can mend become a message on stderr, without a traceback; those of
    other processes have their own in the message."""
    try:
        with _told_once():
            app()
    except BessemerError as error:
        typer.echo(f"bessemer: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except RaisedElsewhere as error:
        typer.echo(f"bessemer: {str(error).rstrip()}", err=True)
        sys.exit(1)


def _told_once() -> AbstractContextManager[None]:
    """Under torchrun: an error that all processes meet is told by one, and once for all restarts."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return nullcontext()
    return imported("bessemer.training.parallel.told_once:told_once")()


def _documents(run: str, runs_folder: Path) -> Path:
    """The folder of a run's curated documents; not verified, for these commands only look."""
    return find_artifact(run, ("documents",), runs_folder, verify=False).folder


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))

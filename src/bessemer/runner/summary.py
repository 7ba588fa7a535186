"""What `bessemer run` prints: the verdicts of a dry run, and the results at the end."""

from collections.abc import Sequence

from bessemer.runner.assess import Verdict
from bessemer.runner.forecast import describe_forecast
from bessemer.runner.layout import RunFolder
from bessemer.runner.predict import DryRun
from bessemer.runner.progress import duration
from bessemer.runner.run import StageResult

SUMMARY_NAME = "summary.txt"
"""A file of an artifact that is shown when a run ends; the last stage that has one is shown."""


def describe_dry_run(dry: DryRun) -> str:
    """The verdicts, the forecasts, and why there are no more of them."""
    blocks = [describe_verdicts(dry.verdicts), *map(describe_forecast, dry.forecasts)]
    return "\n".join([*blocks, *dry.notes])


def describe_verdicts(verdicts: Sequence[Verdict]) -> str:
    """One line a stage: what a run would do, and why."""
    width = max(len(verdict.stage) for verdict in verdicts)
    return "\n".join(
        f"{verdict.stage:{width}}  {verdict.state}"
        + (f": {'; '.join(verdict.reasons)}" if verdict.reasons else "")
        for verdict in verdicts
    )


def describe_results(run: RunFolder, results: Sequence[StageResult]) -> str:
    """A table of stages and times, the export's own summary, and what to do next."""
    width = max(len(result.stage) for result in results)
    lines = [f"{run.root}:"]
    for result in results:
        digest = result.artifact.manifest.digest[:12]
        took = duration(result.wall_s) if result.state == "done" else ""
        lines.append(f"  {result.stage:{width}}  {result.state:10}  {took:>12}  {digest}")
    lines.append(f"  {'total':{width}}  {'':10}  {duration(sum(r.wall_s for r in results)):>12}")
    summaries = [result.artifact.folder / SUMMARY_NAME for result in results]
    for summary in [path for path in summaries if path.is_file()][-1:]:
        lines += ["", summary.read_text(encoding="utf-8").rstrip()]
    return "\n".join([*lines, "", "Next:", *(f"  {command}" for command in next_commands(run, results))])


def next_commands(run: RunFolder, results: Sequence[StageResult]) -> list[str]:
    """Commands that make sense with what the run has made."""
    kinds = {result.artifact.kind: result.stage for result in results}
    commands = []
    if "model" in kinds:
        commands += [f"bessemer chat {run.root}:{kinds['model']}", f"bessemer report {run.root}"]
    return [*commands, f"bessemer status {run.root}", f"bessemer lineage {run.root}"]

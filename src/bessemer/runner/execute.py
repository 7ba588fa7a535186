"""Run one stage: in a hidden partial folder, which becomes the artifact in one rename.

After kill -9 at any point the next attempt finds either the partial folder (and continues in it),
or a complete output that only has to be renamed, or the finished artifact.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bessemer.errors import BessemerError, DamagedArtifact
from bessemer.recipe import StagePlan
from bessemer.runner.context import Metrics, Reporter, StageContext
from bessemer.runner.cost import CostMeter
from bessemer.runner.executors import LOCAL
from bessemer.runner.files import fsync_tree, remove_folder, replace_folder, write_atomically
from bessemer.runner.identity import Identity
from bessemer.runner.layout import PartialFolder, RunFolder
from bessemer.runner.manifest import (
    MANIFEST_NAME,
    METRICS_NAME,
    Artifact,
    FileEntry,
    Manifest,
    digest_of_files,
    list_files,
    open_artifact,
    read_manifest,
    write_manifest,
)
from bessemer.runner.metrics_log import drop_repeats, drop_torn_line
from bessemer.runner.versions import package_versions


def execute(
    plan: StagePlan,
    identity: Identity,
    inputs: Mapping[str, Sequence[Artifact]],
    run: RunFolder,
    reporter: Reporter,
    facts: Mapping[str, Any],
    on: str = LOCAL,
) -> Artifact:
    """Run or continue a stage and publish its artifact.

    `facts` become `StageContext.run`, `on` says where parallel parts run. Whatever the stage raises
    passes through; what it has written stays in the partial folder.
    """
    partial = run.partial(plan.name)
    _prepare(partial, identity.key)
    if not _is_complete(partial, identity.key):
        _attempt(plan, identity, inputs, partial, reporter, facts, on)
    replace_folder(partial.output, run.artifact(plan.name))
    remove_folder(partial.root)
    return Artifact(run.artifact(plan.name), read_manifest(run.artifact(plan.name)))


def _prepare(partial: PartialFolder, key: str) -> None:
    """Make the partial folder, or keep one that was begun for the same key."""
    if partial.read_key() != key:
        remove_folder(partial.root)
        partial.root.mkdir()
        write_atomically(partial.key, key.encode())
    partial.output.mkdir(exist_ok=True)
    partial.scratch.mkdir(exist_ok=True)


def _is_complete(partial: PartialFolder, key: str) -> bool:
    """Whether an earlier attempt was cut short only between its manifest and the rename."""
    try:
        return open_artifact(partial.output).manifest.key == key
    except DamagedArtifact:
        return False


def _attempt(
    plan: StagePlan,
    identity: Identity,
    inputs: Mapping[str, Sequence[Artifact]],
    partial: PartialFolder,
    reporter: Reporter,
    facts: Mapping[str, Any],
    on: str,
) -> None:
    _remove_leftovers(partial)
    drop_torn_line(partial.metrics)
    context = StageContext(
        stage=plan.name,
        seed=identity.seed,
        output=partial.output,
        scratch=partial.scratch,
        inputs=inputs,
        reporter=reporter,
        metrics_path=partial.metrics,
        run=facts,
        on=on,
    )
    with CostMeter(partial.attempts) as meter:
        metrics = plan.stage.function()(plan.config, context)
    if meter.num_attempts > 1:
        drop_repeats(partial.metrics)
    if partial.metrics.exists():
        shutil.copyfile(partial.metrics, partial.output / METRICS_NAME)
    fsync_tree(partial.output)
    entries = list_files(partial.output, plan.stage.measured)
    manifest = _manifest(plan, identity, inputs, entries, metrics, meter)
    write_manifest(partial.output, manifest)


def _remove_leftovers(partial: PartialFolder) -> None:
    """Remove what only a kill inside an atomic write or a publication can leave in the output."""
    for pattern in (".*.partial", ".*.old"):
        for path in sorted(partial.output.rglob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for name in (MANIFEST_NAME, METRICS_NAME):
        (partial.output / name).unlink(missing_ok=True)


def _manifest(
    plan: StagePlan,
    identity: Identity,
    inputs: Mapping[str, Sequence[Artifact]],
    entries: list[FileEntry],
    metrics: Metrics,
    meter: CostMeter,
) -> Manifest:
    try:
        metrics = json.loads(json.dumps(metrics))
    except TypeError as error:
        raise BessemerError(
            f"stage {plan.name!r} returned metrics that are not JSON ({error}): "
            "return plain numbers and texts"
        ) from error
    return Manifest(
        kind=plan.stage.makes,
        stage=plan.name,
        stage_kind=plan.kind,
        format_version=plan.stage.format_version,
        digest=digest_of_files(entries),
        key=identity.key,
        inputs=identity.inputs,
        input_stages={kind: [artifact.stage for artifact in inputs[kind]] for kind in plan.inputs},
        config=identity.config,
        seed=identity.seed,
        versions=package_versions(),
        files=entries,
        metrics=metrics,
        cost=meter.total(flops=float(metrics.get("flops", 0.0))),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def discard(run: RunFolder, stage: str) -> None:
    """Delete a stage's artifact and unfinished work."""
    remove_folder(run.artifact(stage))
    remove_folder(run.partial(stage).root)

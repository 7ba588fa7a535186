"""Sections of the report about the flow and the data: stages, curation, documents kept and dropped."""

from markupsafe import Markup

from bessemer.export.charts import bar_chart
from bessemer.export.figures import made
from bessemer.export.markup import section, tag
from bessemer.export.samples import DocumentSample, dropped_samples, kept_samples
from bessemer.export.view import RunView, StageView
from bessemer.runner.manifest import Artifact
from bessemer.runner.progress import duration

_MAX_BARS = 16


def flow_section(view: RunView) -> Markup:
    """The stages in order, each with its time and what it made."""
    return section(
        "flow",
        "The flow",
        tag("ol", *(_stage_card(stage) for stage in view.stages), class_="flow"),
        lead="Each stage reads what the stages before it made. Times are wall time on this run's machine.",
    )


def _stage_card(stage: StageView) -> Markup:
    is_done = stage.artifact is not None
    time = duration(stage.wall_s) if stage.wall_s else ""
    return tag(
        "li",
        tag("span", time, class_="time"),
        tag("b", stage.name),
        tag("span", stage.kind, class_="made") if stage.kind != stage.name else None,
        tag("span", made(stage) if is_done else stage.status, class_="made"),
        tag("span", "out of date", class_="made") if stage.status == "stale" else None,
        class_=None if is_done else "open",
    )


def curation_section(view: RunView) -> Markup | None:
    """The funnel of the last curation: what entered, what each rule dropped, what was kept."""
    documents = view.last("documents")
    if documents is None or "records" not in documents.manifest.metrics:
        return None
    metrics = documents.manifest.metrics
    entered, kept = metrics["records"], metrics["documents"]
    return section(
        "curation",
        "Curation",
        tag(
            "figure", bar_chart(_funnel(documents), label="Documents by what became of them"), class_="panel"
        ),
        lead=(
            f"{entered:,} pages entered, {kept:,} were kept ({kept / max(entered, 1):.0%}). A page counts "
            "for the first rule that it fails; the ledger holds every rule's value for every page."
        ),
    )


def _funnel(documents: Artifact) -> list[tuple[str, float, str, str]]:
    """Rows for the bar chart: entered, drops from the most frequent, kept."""
    metrics = documents.manifest.metrics
    entered = metrics["records"]
    drops = sorted(
        (
            (name.removeprefix("dropped."), count)
            for name, count in metrics.items()
            if name.startswith("dropped.")
        ),
        key=lambda drop: (-drop[1], drop[0]),
    )
    if len(drops) > _MAX_BARS:
        rest = sum(count for _, count in drops[_MAX_BARS - 1 :])
        drops = [*drops[: _MAX_BARS - 1], (f"{len(drops) - _MAX_BARS + 1} other rules", rest)]

    def told(name: str, count: float) -> str:
        return f"{name}: {count:,} pages, {count / max(entered, 1):.1%} of those that entered"

    return [
        ("entered", entered, told("entered", entered), "bar-total"),
        *((name, count, "dropped by " + told(name, count), "bar") for name, count in drops),
        ("kept", metrics["documents"], told("kept", metrics["documents"]), "bar-kept"),
    ]


def documents_section(view: RunView) -> Markup | None:
    """Documents that were dropped, with the reason, and documents that were kept."""
    documents = view.last("documents")
    if documents is None:
        return None
    dropped, kept = dropped_samples(documents), kept_samples(documents)
    parts: list[Markup | None] = []
    if dropped:
        parts += [
            tag("h3", "Dropped: one page for each of the rules that dropped most"),
            *map(_details, dropped),
        ]
    if kept:
        parts += [tag("h3", "Kept"), *map(_details, kept)]
    return section(
        "documents",
        "Pages kept and dropped",
        *parts,
        lead=f"The ledger explains any page: bessemer why {view.name} URL.",
    )


def _details(sample: DocumentSample) -> Markup:
    return tag(
        "details",
        tag(
            "summary",
            tag("span", sample.url, class_="mono"),
            *(_reason(sample.reason) if sample.reason else []),
        ),
        tag("pre", sample.text or "(no text was extracted)"),
    )


def _reason(reason: str) -> list[Markup]:
    rule, _, rest = reason.partition(": ")
    return [Markup(" "), tag("span", rule, class_="chip"), tag("span", f" {rest}", class_="muted small")]

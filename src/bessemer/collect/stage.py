"""The collect stage: any source of pages to WARC files, so that curation has one reader."""

from bessemer.collect.builtin.corpus import collect_builtin
from bessemer.collect.clock import crawl_clock, file_epoch, warc_date
from bessemer.collect.common_crawl.collect import collect_common_crawl
from bessemer.collect.config import CollectConfig
from bessemer.collect.crawler import CrawlPlan, crawl, warc_head
from bessemer.collect.failures import FAILURES_NAME, count_failures, first_failure
from bessemer.collect.hub.collect import collect_hub
from bessemer.collect.local import collect_files
from bessemer.errors import BessemerError
from bessemer.formats.warc_writer import WarcHead
from bessemer.runner.context import Metrics, StageContext


def collect(config: CollectConfig, context: StageContext) -> Metrics:
    """Make a `pages` artifact: WARC files, and crawl.jsonl when something gave no page.

    Returns `pages`, `failed` (tries that gave no page), `failed_by_reason`, `faulty_by_reason` (of pages that
    were kept), `files` and `bytes`; crawl.jsonl has a line for each fault.
    Raises BessemerError when a path or seed URL names nothing that can be collected, or when the
    source gave no page at all.
    """
    context.output.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    num_pages, facts = _collect_pages(config, context)
    failures = count_failures(context.output)
    if num_pages == 0:
        raise BessemerError(
            f"stage {context.stage!r} collected no page from {failures.total()} tries "
            f"(first: {first_failure(context.output)}). "
            f"Every one is listed in {context.output / FAILURES_NAME}"
        )
    files = [path for path in sorted(context.output.iterdir()) if path.name != FAILURES_NAME]
    num_bytes = sum(path.stat().st_size for path in files)
    context.say(f"{num_pages:,} pages in {len(files)} WARC files, {num_bytes / 1e6:.1f} MB")
    if failures:
        context.say(f"{failures.total():,} tries gave no page: {_in_words(failures)}")
    faulty = count_failures(context.output, is_kept=True)
    if faulty:
        context.say(f"{faulty.total():,} faults in what was kept: {_in_words(faulty)}")
    return {
        "pages": num_pages,
        "failed": failures.total(),
        "failed_by_reason": dict(sorted(failures.items())),
        "faulty_by_reason": dict(sorted(faulty.items())),
        "files": len(files),
        "bytes": num_bytes,
        **facts,
    }


def _collect_pages(config: CollectConfig, context: StageContext) -> tuple[int, Metrics]:
    """Number of pages, and what else the manifest should say of the source."""

    def head(description: str) -> WarcHead:
        # Nothing but a crawl has a date of its own: what it writes depends on its input alone.
        return warc_head(config.crawl, warc_date(file_epoch()), description)

    match config.source:
        case "builtin":
            return collect_builtin(config, context)
        case "path":
            return collect_files(config, context, head("local files")), {}
        case "common_crawl":
            return collect_common_crawl(config, context, head("pages of Common Crawl")), {}
        case "urls":
            clock = crawl_clock()
            crawl_head = warc_head(config.crawl, warc_date(clock()), "crawl")
            known = {"source": config.source_name, "licence": config.licence}
            about = {name: value for name, value in known.items() if value}
            plan = CrawlPlan(config.urls, config.max_pages, config.max_file_bytes, crawl_head, clock, about)
            progress = crawl(config.crawl, plan, context)
            return progress.num_pages, progress.facts
        case "hub":
            return collect_hub(config, context, head("a data set of the hub"))


def _in_words(failures: dict[str, int]) -> str:
    ordered = sorted(failures.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} ({count})" for reason, count in ordered)

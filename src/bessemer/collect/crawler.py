"""The crawl: breadth-first from seed URLs, many requests at once, one order of records.

URLs are fetched concurrently but processed strictly in frontier order, so the archive does not depend
on which answer came first. Every stretch of pages is committed as one: archive and failure log are
synced, then the frontier's transaction records how long they are. After kill -9 both files are cut
back to the last commit and the crawl goes on from there.
"""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from bessemer.collect.archive import Archive
from bessemer.collect.clock import Clock
from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.failures import FailureLog
from bessemer.collect.fetch import Fetcher, user_agent
from bessemer.collect.frontier import CrawlProgress, Frontier
from bessemer.collect.recrawl import PreviousCrawl
from bessemer.collect.robots import Sites
from bessemer.collect.scope import Scope
from bessemer.collect.visit import Visitor
from bessemer.collect.window import Window
from bessemer.errors import ConfigError
from bessemer.formats.warc_writer import WarcHead, WarcWriter
from bessemer.runner.context import StageContext
from bessemer.urls import canonical_url


@dataclass(frozen=True)
class CrawlPlan:
    """What to crawl, beside how."""

    seeds: tuple[str, ...]
    max_pages: int | None
    max_file_bytes: int
    head: WarcHead
    clock: Clock
    about: Mapping[str, str] = field(default_factory=dict)
    """`source` and `licence` of the pages, where the user knows them."""


def crawl(config: CrawlConfig, plan: CrawlPlan, context: StageContext) -> CrawlProgress:
    """Crawl into WARC files under the context's output; continues what an earlier attempt committed.

    Raises ConfigError when a seed is no http(s) URL, or an earlier crawl's folder holds no WARC files.
    """
    seeds = [canonical_url(seed) for seed in plan.seeds]
    bad = [seed for seed, canonical in zip(plan.seeds, seeds, strict=True) if canonical is None]
    if bad:
        raise ConfigError(f"not http(s) URLs: {', '.join(map(repr, bad))}; write them as https://host/path")
    with ExitStack() as opened:
        previous = None
        if config.previous_folders:
            context.say("reading the index of the earlier crawl")
            index = context.scratch / "previous.sqlite"
            previous = opened.enter_context(PreviousCrawl(index, config.previous_folders))
        frontier = opened.enter_context(Frontier(context.scratch / "frontier.sqlite"))
        for seed in filter(None, seeds):
            frontier.add(seed, depth=0)
        progress = frontier.progress()
        failures = opened.enter_context(FailureLog(context.output, progress.failures_offset))
        writer = opened.enter_context(
            WarcWriter(context.output, plan.head, plan.max_file_bytes, progress.warc)
        )
        scope = Scope(config, frontier.starting_points())
        archive = Archive(config, scope, frontier, writer, failures, previous, plan.about)
        asyncio.run(_run(config, plan, archive, previous, context))
        archive.commit()
        for line in in_words(archive, plan):
            context.say(line)
        return archive.progress


def warc_head(config: CrawlConfig, date: str, description: str) -> WarcHead:
    """The first record of each file of a collection."""
    robots = "obey" if config.respect_robots else "ignore"
    agent = user_agent(config)
    return WarcHead(
        date,
        {
            "software": agent.partition(" ")[0],
            "description": description,
            "http-header-user-agent": agent,
            "robots": robots,
        },
    )


def in_words(archive: Archive, plan: CrawlPlan) -> list[str]:
    """What the user should know of a crawl beside its pages and failures, a line each."""
    progress, lines = archive.progress, []
    if progress.num_not_modified or progress.num_same_content:
        lines.append(
            f"{progress.num_not_modified:,} pages had not changed, "
            f"{progress.num_same_content:,} had the bytes of another page: revisit records"
        )
    if progress.num_marked:
        lines.append(f"{progress.num_marked:,} pages are reserved by their owners and marked so")
    if progress.hosts_given_up:
        shown = ", ".join(progress.hosts_given_up[:5])
        lines.append(f"hosts given up after failures: {len(progress.hosts_given_up):,} ({shown})")
    if progress.links_left:
        ordered = sorted(progress.links_left.items(), key=lambda item: (-item[1], item[0]))
        lines.append(f"links left: {', '.join(f'{trap} ({num:,})' for trap, num in ordered)}")
    if plan.max_pages is not None and progress.num_pages >= plan.max_pages:
        num_waiting = archive.frontier.num_pending()
        lines.append(f"stopped at max_pages = {plan.max_pages:,}; {num_waiting:,} URLs were waiting")
    return lines


async def _run(
    config: CrawlConfig,
    plan: CrawlPlan,
    archive: Archive,
    previous: PreviousCrawl | None,
    context: StageContext,
) -> None:
    """Keep a window of URLs under way and hand what came of them to the archive in frontier order."""
    async with Fetcher(config) as fetcher:
        sites = Sites(config, fetcher, plan.clock)
        visitor = Visitor(config, plan.clock, fetcher, sites, previous, archive.given_up)
        window = Window(visitor.visit, config.max_concurrency, config.max_concurrency_per_host)
        try:
            with context.progress("crawl", total=plan.max_pages, unit="pages") as shown:
                last_id = 0
                while (num_wanted := _num_wanted(plan, archive)) > 0:
                    limit = min(window.num_free, num_wanted - len(window))
                    for entry in archive.frontier.pending(last_id, limit) if limit > 0 else []:
                        window.add(entry)
                        last_id = entry.id
                    if not len(window):
                        return
                    archive.add(*await window.next())
                    shown.set(archive.progress.num_pages, waiting=len(window), failed=archive.num_failed)
        finally:
            await window.aclose()
            await sites.aclose()


def _num_wanted(plan: CrawlPlan, archive: Archive) -> int:
    """How many pages may still come."""
    return (1 << 62) if plan.max_pages is None else plan.max_pages - archive.progress.num_pages

"""Collecting the built-in corpus: render, serve on loopback, crawl."""

import html
import importlib.util
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from bessemer.collect.builtin.pages import page, section
from bessemer.collect.builtin.rendering import Rendered, corpus_groups, render_corpus
from bessemer.collect.builtin.server import PageServer
from bessemer.collect.clock import file_epoch, fixed_epoch, warc_date
from bessemer.collect.config import CollectConfig
from bessemer.collect.crawler import CrawlPlan, crawl, warc_head
from bessemer.collect.failures import FailureLog
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.files import write_atomically

HOST = "pydoc.localhost"
"""`.localhost` names never leave the machine (RFC 6761, section 6.3)."""
_RENDERED_NAME = "rendered.json"


def collect_builtin(config: CollectConfig, context: StageContext) -> tuple[int, Metrics]:
    """Make the corpus and crawl it into the context's output. Returns the number of pages and its facts.

    The records carry no date but 1970 (or SOURCE_DATE_EPOCH): wheels do not say when they were built, and
    dates of installation would give the same text other bytes on every machine. When the packages were
    installed is `no_newer_than` among the facts.
    """
    rendered = _render_once(config, context)
    date_s = file_epoch()
    with PageServer({"index": index_page(rendered.pages), **rendered.pages}, date_s) as server:
        crawl_config = config.crawl.model_copy(
            update={
                "delay_s": 0.0,
                "max_concurrency": 8,
                "max_concurrency_per_host": 8,
                "max_depth": 1,  # the index links to every page
                "same_host": True,
                "resolve": {HOST: server.address},
            }
        )
        plan = CrawlPlan(
            seeds=(f"http://{HOST}/index.html",),
            max_pages=config.max_pages,
            max_file_bytes=config.max_file_bytes,
            head=warc_head(crawl_config, warc_date(date_s), f"documentation of Python {_python_version()}"),
            clock=lambda: date_s,
        )
        progress = crawl(crawl_config, plan, context)
    with FailureLog(context.output, progress.failures_offset) as failures:
        for name, reason in sorted(rendered.failures.items()):
            failures.add(f"pydoc:{name}", reason)
        failures.sync()
    return progress.num_pages, {"no_newer_than": warc_date(_installed_s(config))}


def _installed_s(config: CollectConfig) -> float:
    """When the documented installation last changed, in seconds since 1970: nothing in it is newer.

    The newest of Python's and the packages' files. SOURCE_DATE_EPOCH wins when it is set.
    """
    epoch_s = fixed_epoch()
    if epoch_s is not None:
        return epoch_s
    packages = config.builtin_packages if config.builtin_modules is None else ()
    specs = [importlib.util.find_spec(name) for name in packages]
    origins = [spec.origin for spec in specs if spec is not None and spec.origin is not None]
    return max(float(int(Path(path).stat().st_mtime)) for path in (os.__file__, *origins))


def index_page(paths: dict[str, str]) -> str:
    """A page that links to every other, a section for each part of the corpus."""
    items = [
        f'<li><a href="/{html.escape(path)}.html">{html.escape(path.partition("/")[2])}</a></li>\n'
        for path in paths
    ]
    return page("Index", section("Pages", f"<ul>\n{''.join(items)}</ul>\n"))


def _render_once(config: CollectConfig, context: StageContext) -> Rendered:
    """Render, or take what an earlier attempt rendered."""
    path = context.scratch / _RENDERED_NAME
    if path.exists():
        return Rendered(**json.loads(path.read_bytes()))
    num_names = sum(len(group.names) for group in corpus_groups(config)[0])
    with context.progress("render documentation", total=num_names, unit="modules") as progress:
        rendered = render_corpus(config, context.scratch / "render", progress.advance)
    write_atomically(path, json.dumps(asdict(rendered)).encode())
    return rendered


def _python_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))

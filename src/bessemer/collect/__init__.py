"""Collecting raw pages: a polite crawler, WARC and Common Crawl files, local files, a built-in corpus.

Everything ends up as WARC files in a `pages` artifact.
"""

from bessemer.collect.config import CollectConfig, CrawlConfig
from bessemer.collect.stage import collect

__all__ = ["CollectConfig", "CrawlConfig", "collect"]

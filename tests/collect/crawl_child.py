"""Crawls a site in a process of its own, so that a test can kill it. Arguments: ADDRESS FOLDER."""

import sys
from pathlib import Path

from collect_helpers import crawl_config, stage_context

from bessemer.collect import collect

if __name__ == "__main__":
    config = crawl_config(sys.argv[1], "/0", max_concurrency=2, max_depth=50, pages_per_commit=3)
    collect(config, stage_context(Path(sys.argv[2])))

"""Traps: URLs that a site can make without end. Each is told from the URL alone.

The path rules are Heritrix's (TooManyPathSegmentsDecideRule, PathologicalPathDecideRule). Calendars and
endless queries are told by how many URLs share a *shape*: what is left when the dates, or the query, are
taken out.
"""

import re
from functools import lru_cache
from urllib.parse import urlsplit

from bessemer.collect.crawl_config import TrapConfig

_DATE_IN_PATH = re.compile(
    r"(?<=/)\d{4}/(?:0?[1-9]|1[0-2])(?:/(?:0?[1-9]|[12]\d|3[01]))?(?=/|$)"  # /2031/05, /2031/5/17
    r"|(?<!\d)\d{4}-(?:0[1-9]|1[0-2])(?:-[0-3]\d)?(?!\d)"  # 2031-05, 2031-05-17
    r"|(?<!\d)(?:19|2\d)\d\d(?:0[1-9]|1[0-2])[0-3]\d(?!\d)"  # 20310517
)
_DATE_PARAMETER = re.compile(
    r"(?<![^&])((?:cal_?|event_?|start_?|end_?)?(?:date|day|week|month|mon|year|yr|ym|ymd|[dmyw]))"
    r"=(?:\d{1,4}|[a-z]{3,9})(?=&|$)",
    re.IGNORECASE,
)


def trap_of(url: str, config: TrapConfig) -> str | None:
    """Why a canonical URL is not worth following, None when it is."""
    parts = urlsplit(url)
    segments = [segment for segment in parts.path.split("/") if segment]
    if config.max_path_segments and len(segments) > config.max_path_segments:
        return "too many path segments"
    if config.max_repeats and _repetition(config.max_repeats).search(parts.path + "/"):
        return "repeating path"
    if config.max_query_parameters and parts.query.count("&") >= config.max_query_parameters:
        return "too many query parameters"
    return None


def date_shape(url: str) -> str | None:
    """The URL with its dates taken out, None when it has none."""
    head, mark, query = url.partition("?")
    path_shape, num_in_path = _DATE_IN_PATH.subn("#", head)
    undated_query = _DATE_PARAMETER.sub(r"\1=#", _DATE_IN_PATH.sub("#", query))
    if num_in_path == 0 and undated_query == query:
        return None
    return f"dates {path_shape}{mark}{undated_query}"


def query_shape(url: str) -> str | None:
    """The URL without its query, None when it has none."""
    head, mark, _ = url.partition("?")
    return f"queries {head}" if mark else None


@lru_cache(maxsize=8)
def _repetition(max_repeats: int) -> re.Pattern[str]:
    # A row of up to four segments, then the same row again more than `max_repeats` times. The bounds
    # keep the search linear in the path's length.
    return re.compile(rf"/((?:[^/]+/){{1,4}}?)(?:\1){{{max_repeats}}}")

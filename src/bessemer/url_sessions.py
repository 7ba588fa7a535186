"""What in a URL names a visit or the way to a page, not the page: session ids and campaign marks.

A site that writes a new session id into every link has no end; a page that was reached from a
newsletter is the page. Both are cut from URLs before they are compared (Heritrix, its canonicalization
rules StripSessionIDs and StripSessionCFIDs, are the model; the campaign marks are those of the makers
of web statistics).
"""

import re
from functools import lru_cache

_SESSION_NAMES = frozenset(
    [
        "phpsessid",
        "jsessionid",
        "jservsessionid",
        "sessionid",
        "session_id",
        "sessid",
        "asp.net_sessionid",
        "cfid",
        "cftoken",
        "oscsid",
        "zenid",
    ]
)
_CAMPAIGN_NAMES = frozenset(
    [
        "gclid",
        "dclid",
        "gbraid",
        "wbraid",
        "fbclid",
        "msclkid",
        "yclid",
        "twclid",
        "igshid",
        "mc_cid",
        "mc_eid",
        "mkt_tok",
        "_ga",
        "_gl",
        "_hsenc",
        "_hsmi",
        "vero_id",
        "oly_enc_id",
    ]
)
_PREFIXES = ("utm_", "aspsessionid")
_SHORT_NAME = "sid"
_PLAIN_NUMBER = re.compile(r"[0-9]{1,10}")
_PATH_PARAMETER = re.compile(r";(?:jsessionid|phpsessid|sessionid|sid)=[^/;]*", re.IGNORECASE)
_ASP_NET_SEGMENT = re.compile(r"/\((?:[A-Za-z]\([0-9A-Za-z]{24}\))+\)(?=/)")


def path_without_session(path: str) -> str:
    """Cut `;jsessionid=…` and the like, and ASP.NET's `/(S(…))`, from a path."""
    if ";" in path:
        path = _PATH_PARAMETER.sub("", path)
    return _ASP_NET_SEGMENT.sub("", path) if "/(" in path else path


def query_without_session(query: str) -> str:
    """Cut session ids and campaign marks from a query; what stays keeps its order and spelling."""
    if not query:
        return query
    parameters = query.split("&")
    kept = [parameter for parameter in parameters if not _names_a_visit(parameter)]
    return query if len(kept) == len(parameters) else "&".join(kept)


def without_parameters(url: str, names: tuple[str, ...]) -> str:
    """Cut parameters of these names from a canonical URL; a name that ends in `*` stands for all that
    begin so."""
    if not names or "?" not in url:
        return url
    head, _, query = url.partition("?")
    pattern = _pattern_of(names)
    parameters = query.split("&")
    kept = [each for each in parameters if not pattern.fullmatch(each.partition("=")[0])]
    return f"{head}?{'&'.join(kept)}" if kept else head


@lru_cache(maxsize=8)
def _pattern_of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in names), re.IGNORECASE)


def _names_a_visit(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    name = name.lower()
    if name in _SESSION_NAMES or name in _CAMPAIGN_NAMES or name.startswith(_PREFIXES):
        return True
    # `sid=17` is as often the seventeenth story as a session; a session id has letters or is long.
    return name == _SHORT_NAME and not _PLAIN_NUMBER.fullmatch(value) and "%2F" not in value

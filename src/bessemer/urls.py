"""URLs: one canonical spelling for each page, so that no page is fetched twice.

Follows the syntax-based and scheme-based normalisation of RFC 3986, section 6.2, and cuts session ids
and campaign marks (see `url_sessions`). The order of query parameters is kept, since it may matter to the
server.
"""

import re
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from bessemer.url_sessions import path_without_session, query_without_session

_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = _UNRESERVED | frozenset("/!$&'()*+,;=:@")
_QUERY_SAFE = _PATH_SAFE | frozenset("?")
_CLEAN = re.compile(r"[A-Za-z0-9._~/!$&'()*+,;=:@-]*")
"""Text that no escaping changes; most paths and queries are such."""
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?\.?|\[[0-9a-f:.]+\]")
_MAX_URL_CHARS = 2048


def canonical_url(url: str, base: str | None = None) -> str | None:
    """The one spelling of an http(s) URL, or None when it is none that can be fetched.

    Lower-case scheme and host (IDNA for international ones), no default port, no fragment, no user
    name, no session id, dot segments resolved, escapes in upper case and only where needed. Idempotent.
    """
    url = re.sub(r"[\t\r\n]", "", url).strip(" \x0b\x0c\x00")
    try:
        parts = urlsplit(urljoin(base, url) if base else url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    host = _canonical_host(parts)
    if scheme not in _DEFAULT_PORTS or host is None or port == 0:
        return None
    netloc = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    path = path_without_session(_escape(parts.path, _PATH_SAFE))
    query = query_without_session(_escape(parts.query, _QUERY_SAFE))
    canonical = urlunsplit((scheme, netloc, _remove_dot_segments(path) or "/", query, ""))
    return canonical if len(canonical) <= _MAX_URL_CHARS else None


def host_of(url: str) -> str:
    """Host of a canonical URL, without the port and without the brackets of an IPv6 address."""
    return urlsplit(url).hostname or ""


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL: what one robots.txt holds for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def authority_of(url: str) -> str:
    """Host, and port if it is not the scheme's own: the server that one delay holds for."""
    return urlsplit(url).netloc


def request_target(url: str) -> str:
    """Path and query of a canonical URL, as the request line has them."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _canonical_host(parts: SplitResult) -> str | None:
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    elif not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    host = host.lower().rstrip(".")
    return host if _HOST.fullmatch(host) and ".." not in host else None


def escaped(path: str) -> str:
    """Path and query in the one spelling of escapes that canonical URLs have."""
    return _escape(path, _QUERY_SAFE)


def _escape(text: str, safe: frozenset[str]) -> str:
    """Escape what must be, unescape what need not be, and spell escapes in upper case."""
    if _CLEAN.fullmatch(text):
        return text
    pieces: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        escape = _ESCAPE.match(text, position)
        if escape:
            decoded = chr(int(escape[1], 16))
            pieces.append(decoded if decoded in _UNRESERVED else f"%{escape[1].upper()}")
            position = escape.end()
            continue
        if char in safe:
            pieces.append(char)
        else:
            pieces.extend(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
        position += 1
    return "".join(pieces)


def _remove_dot_segments(path: str) -> str:
    """RFC 3986, section 5.2.4, for paths that begin with a slash or are empty."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
            continue
        if is_last:
            kept.append("")
    return "/" + "/".join(kept) if segments else ""

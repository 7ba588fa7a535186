"""Folders of HTML files as a web site on loopback, and what of it can be reached by links."""

import mimetypes
import threading
from collections import Counter, deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from resiliparse.parse.html import ElementNode, HTMLTree

DEBIAN_DOCUMENTATION = {
    "python": Path("/usr/share/doc/python3.11-doc/html"),
    "sqlite": Path("/usr/share/doc/sqlite3"),
    "postgresql": Path("/usr/share/doc/postgresql-doc-15/html"),
}
"""Where Debian's packages python3-doc, sqlite3-doc and postgresql-doc put their pages."""
PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/plain")


def installed(*names: str) -> dict[str, Path]:
    """The folders of these that are on this machine."""
    return {
        name: folder
        for name, folder in DEBIAN_DOCUMENTATION.items()
        if name in names and (folder / "index.html").is_file()
    }


class FolderSite(ThreadingHTTPServer):
    """Serves `/NAME/…` from folders, and an index of them at `/`."""

    daemon_threads = True

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = {name: folder.resolve() for name, folder in folders.items()}
        self.asked: Counter[str] = Counter()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def index(self) -> bytes:
        return "".join(f'<a href="/{name}/index.html">{name}</a>' for name in self.folders).encode()

    def content(self, path: str) -> tuple[str, bytes] | None:
        """Media type and bytes of a path; None when nothing is there."""
        if path == "/":
            return "text/html", self.index
        name, _, rest = unquote(path).lstrip("/").partition("/")
        folder = self.folders.get(name)
        if folder is None:
            return None
        file = (folder / rest).resolve()
        if not file.is_relative_to(folder) or not file.is_file():
            return None
        return mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes()

    def reachable(self) -> set[str]:
        """Paths of all pages that links lead to from `/`, by a browser's parser."""
        found, waiting = {"/"}, deque(["/"])
        while waiting:
            path = waiting.popleft()
            media_type, body = self.content(path) or ("", b"")
            for link in _links(path, body) if media_type == "text/html" else ():
                answer = self.content(link) if link not in found else None
                if answer is not None and answer[0] in PAGE_TYPES:
                    found.add(link)
                    waiting.append(link)
        return found

    def __enter__(self) -> "FolderSite":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """The crawler hangs up on what it does not want; that is no news."""


def _links(path: str, body: bytes) -> set[str]:
    document = HTMLTree.parse_from_bytes(body).document
    hrefs = (
        node.getattr("href") or ""
        for node in document or ()
        if isinstance(node, ElementNode) and node.tag in ("a", "area") and node.hasattr("href")
    )
    targets = set()
    for href in hrefs:
        try:
            parts = urlsplit(urljoin(f"http://site.test{path}", href.strip()))
        except ValueError:
            continue
        if parts.scheme == "http" and parts.netloc == "site.test" and not parts.query:
            targets.add(parts.path)
    return targets


class _Handler(BaseHTTPRequestHandler):
    server: FolderSite
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        answer = self.server.content(urlsplit(self.path).path)
        status, (media_type, body) = (404, ("text/plain", b"gone")) if answer is None else (200, answer)
        self.send_response_only(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests say what matters."""

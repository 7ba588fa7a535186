"""A web server on loopback for pages that are held in memory."""

import sys
import threading
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class PageServer(ThreadingHTTPServer):
    """Serves `{path: HTML}` on a free loopback port while it is entered as a context manager."""

    daemon_threads = True

    def __init__(self, pages: Mapping[str, str], modified_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = {f"/{path}.html": content.encode("utf-8") for path, content in pages.items()}
        self.last_modified = formatdate(modified_s, usegmt=True)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def address(self) -> str:
        """`ADDRESS:PORT`."""
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "PageServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that the crawler drops when it has enough pages."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Answers GET. The headers hold no date and no version, so that the answers are always the same."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/robots.txt":
            self._answer(200, "text/plain; charset=utf-8", b"User-agent: *\nAllow: /\n")
            return
        body = self.server.pages.get(unquote(self.path))
        if body is None:
            self._answer(404, "text/plain; charset=utf-8", b"No such page.\n")
        else:
            self._answer(200, "text/html; charset=utf-8", body)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", self.server.last_modified)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the crawler reports what matters."""

"""A site on loopback to crawl, and a stage context to crawl it in."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bessemer.collect import CollectConfig
from bessemer.formats.warc import WarcRecord, read_warc
from bessemer.runner.context import Reporter, StageContext

HOST = "site.test"


@dataclass
class Answer:
    """What the site answers to one path."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    has_length: bool = True
    """Without a length, the body ends where the connection does."""
    before: Callable[[], object] = lambda: None
    """Called before the answer is sent."""


def html_page(*links: str, text: str = "words") -> Answer:
    anchors = " ".join(f'<a href="{link}">link</a>' for link in links)
    return Answer(f"<html><body><p>{text}</p>{anchors}</body></html>".encode())


class Site(ThreadingHTTPServer):
    """Serves answers by path on a loopback port, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, Answer | list[Answer]], robots: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = {"/robots.txt": robots or Answer(status=404), **answers}
        self.asked: Counter[str] = Counter()
        self.agents: set[str | None] = set()
        self.conditional: Counter[str] = Counter()
        """Paths that were asked for on the condition that they changed."""
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "Site":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """The crawler hangs up on slow and long answers; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked[self.path] += 1
            self.server.agents.add(self.headers["User-Agent"])
            if self.headers["If-None-Match"] or self.headers["If-Modified-Since"]:
                self.server.conditional[self.path] += 1
            answer = self.server.answers.get(self.path, Answer(b"gone", 404))
            if isinstance(answer, list):
                answer = answer[min(self.server.asked[self.path], len(answer)) - 1]
        answer.before()
        if self._has_not_changed(answer):
            answer = Answer(status=304, content_type=None, headers=answer.headers)
        self.send_response_only(answer.status)
        if answer.content_type is not None:
            self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status == 304:
            pass
        elif answer.has_length:
            self.send_header("Content-Length", str(len(answer.body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def _has_not_changed(self, answer: Answer) -> bool:
        etag, date = self.headers["If-None-Match"], self.headers["If-Modified-Since"]
        if etag is not None:
            return etag == answer.headers.get("ETag")
        return date is not None and date == answer.headers.get("Last-Modified")

    def log_message(self, format: str, *args: object) -> None:
        """Tests say what matters."""


class SilentProgress:
    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None: ...
    def __enter__(self) -> "SilentProgress":
        return self

    def __exit__(self, *error: object) -> None: ...


class SilentReporter:
    def say(self, text: str) -> None: ...
    def progress(self, description: str, total: float | None, unit: str) -> SilentProgress:
        return SilentProgress()


def stage_context(folder: Path, reporter: Reporter | None = None) -> StageContext:
    return StageContext(
        stage="collect",
        seed=0,
        output=folder / "output",
        scratch=folder / "scratch",
        inputs={},
        reporter=reporter or SilentReporter(),
        metrics_path=folder / "metrics.jsonl",
    )


def crawl_config(
    site_address: str, *paths: str, max_pages: int | None = None, **crawl: object
) -> CollectConfig:
    settings = {"delay_s": 0, "retry_delay_s": 0.01, "resolve": {HOST: site_address}, **crawl}
    return CollectConfig.model_validate(
        {"urls": [f"http://{HOST}{path}" for path in paths], "max_pages": max_pages, "crawl": settings}
    )


def records_of(output: Path) -> list[WarcRecord]:
    items = [item for path in sorted(output.glob("*.warc*")) for item in read_warc(path)]
    records = [item for item in items if isinstance(item, WarcRecord)]
    assert len(records) == len(items), "what collect writes is never damaged"
    return records


def paths_of(output: Path) -> list[str]:
    """Paths of the pages with status 200, in the order of the archive."""
    prefix = f"http://{HOST}"
    return [record.uri.removeprefix(prefix) for record in records_of(output) if record.status == 200]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

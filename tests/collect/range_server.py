"""A loopback server that speaks what Common Crawl's do: byte ranges, validators, and the CDX protocol."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class RangeServer(ThreadingHTTPServer):
    """Serves `files` by path and `captures` as the index; `faults` are done first, one a request."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], captures: list[dict] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.captures = captures or []
        self.faults: list[str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.authorizations: set[str | None] = set()
        self.is_s3 = False
        """Whether it gives MD5 digests as Amazon S3 does, where Common Crawl's files are."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "RangeServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append((self.path, self.headers["Range"]))
        self.server.authorizations.add(self.headers["Authorization"])
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "busy":
            self._answer(503, b"Slow down", {"Retry-After": "7"})
        elif fault == "slow":
            self._answer(503, b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>", {})
        elif parts.path.endswith("-index"):
            self._index({name: values[0] for name, values in parse_qs(parts.query).items()})
        elif parts.path.lstrip("/") in self.server.files:
            self._file(self.server.files[parts.path.lstrip("/")], fault)
        else:
            self._answer(404, b"gone", {})

    def _file(self, content: bytes, fault: str) -> None:
        etag = f'"v{len(content)}"'
        if self.server.is_s3:
            etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        found = _RANGE.fullmatch(self.headers["Range"] or "")
        is_same = self.headers["If-Range"] in (None, etag)
        start, end, status, headers = 0, len(content), 200, {"ETag": etag}
        if self.server.is_s3:
            headers["x-amz-request-id"] = "1"
        if found and is_same:
            start, end, status = int(found[1]), int(found[2] or len(content) - 1) + 1, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end]
        if fault == "cut":
            self._answer(status, body[: len(body) // 2], headers, len(body))
            self.close_connection = True
        elif fault == "wrong":
            self._answer(status, bytes(len(body)), headers)
        else:
            self._answer(status, body, headers)

    def _index(self, query: dict[str, str]) -> None:
        lines = [json.dumps(capture) for capture in self.server.captures if _fits(capture, query["url"])]
        if not lines:
            self._answer(404, b'{"message": "No Captures found for: x"}', {})
        elif "showNumPages" in query:
            self._answer(200, json.dumps({"pages": len(lines)}).encode(), {})
        else:
            self._answer(200, lines[int(query["page"])].encode() + b"\n", {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests say what matters."""


def _fits(capture: dict, query: str) -> bool:
    return capture["url"] == query or (query.endswith("*") and query[:-1] in capture["url"])

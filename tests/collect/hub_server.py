"""A loopback server that speaks what the Hugging Face hub does for data sets.

As much as its own client needs (`test_hub` has huggingface_hub ask it, too): a revision with commit, date
and card, the list of files in pages, and files at `/resolve/`. Large ones lie on another server, as the
hub's do, with byte ranges and addresses that are signed anew at every request.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from range_server import RangeServer

PAGE = 2
"""Entries a page of the list."""


def git_blob(content: bytes) -> str:
    """What git calls a content by."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer(ThreadingHTTPServer):
    """One data set with one branch, `main`. Files above `large` bytes are kept on `storage`."""

    daemon_threads = True

    def __init__(self, dataset: str, files: dict[str, bytes], card: dict, large: int = 500) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dataset = dataset
        self.card = card
        self.large = large
        self.asked: list[str] = []
        self.authorizations: set[str | None] = set()
        self.commits: dict[str, dict[str, bytes]] = {}
        self.main = ""
        self.storage = RangeServer({})
        self.push(files)

    def push(self, files: dict[str, bytes]) -> None:
        """Make these files the newest commit of `main`."""
        digest = hashlib.sha1(b"".join(name.encode() + content for name, content in sorted(files.items())))
        self.main = digest.hexdigest()
        self.commits[self.main] = files
        self.storage.files |= {f"blobs/{_sha256(content)}": content for content in files.values()}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "HubServer":
        self.storage.__enter__()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.storage.__exit__()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.authorizations.add(self.headers["Authorization"])
        api, files = f"/api/datasets/{self.server.dataset}/", f"/datasets/{self.server.dataset}/resolve/"
        if parts.path.startswith(api):
            kind, _, revision = parts.path.removeprefix(api).partition("/")
            commit = self._commit(unquote(revision))
            if commit is None:
                return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if kind == "revision":
                return self._json(self._revision(commit))
            return self._tree(commit, parse_qs(parts.query))
        if parts.path.startswith(files):
            revision, _, name = parts.path.removeprefix(files).partition("/")
            commit = self._commit(revision)
            content = self.server.commits.get(commit or "", {}).get(unquote(name))
            if commit is None or content is None:
                return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self._file(commit, content)
        return self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _commit(self, revision: str) -> str | None:
        if revision == "main":
            return self.server.main
        return revision if revision in self.server.commits else None

    def _revision(self, commit: str) -> dict:
        files = self.server.commits[commit]
        return {
            "id": self.server.dataset,
            "sha": commit,
            "lastModified": "2024-03-05T06:07:08.000Z",
            "private": False,
            "gated": False,
            "cardData": self.server.card,
            "siblings": [
                {"rfilename": name, "size": len(content), "blobId": git_blob(content), **self._lfs(content)}
                for name, content in files.items()
            ],
        }

    def _lfs(self, content: bytes) -> dict:
        if len(content) <= self.server.large:
            return {}
        return {"lfs": {"size": len(content), "sha256": _sha256(content), "pointerSize": 134}}

    def _tree(self, commit: str, query: dict[str, list[str]]) -> None:
        entries: list[dict] = [{"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}]
        for name, content in sorted(self.server.commits[commit].items()):
            entry = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
            if len(content) > self.server.large:
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        start = int(query.get("cursor", ["0"])[0])
        following = {}
        if start + PAGE < len(entries):
            path = f"/api/datasets/{self.server.dataset}/tree/{commit}"
            target = f"{self.server.url}{path}?recursive=true&expand=false&cursor={start + PAGE}"
            following = {"Link": f'<{target}>; rel="next"'}
        self._json(entries[start : start + PAGE], following)

    def _file(self, commit: str, content: bytes) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_blob(content)}"'}
        if len(content) <= self.server.large:
            return self._answer(200, content, headers)
        digest = _sha256(content)
        signed = f"{self.server.storage.url}/blobs/{digest}?signature={len(self.server.asked)}"
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": signed}
        return self._answer(302, b"Found", {**headers, **linked})

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests say what matters."""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

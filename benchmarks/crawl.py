"""Pages a minute of the crawler against a site on loopback, beside wget where it is installed.

    python benchmarks/crawl.py [FOLDER …] [--turns 3]

The folders are served by a process of their own, so that crawler and server have a core each; without
folders, those of Debian's packages python3-doc, sqlite3-doc and postgresql-doc are taken. Both crawlers
start at an index of the folders and follow links. Ours writes WARC records with digests, an SQLite frontier
and a commit every 100 pages; `wget -r` writes files, one connection, without a WARC and without resume.
Pages are what is stored as HTML or plain text; turns alternate.
"""

import argparse
import json
import mimetypes
import multiprocessing
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bessemer.collect import CollectConfig, collect
from bessemer.runner.context import StageContext
from bessemer.runner.progress import PlainReporter

DEBIAN = (
    "/usr/share/doc/python3.11-doc/html",
    "/usr/share/doc/sqlite3",
    "/usr/share/doc/postgresql-doc-15/html",
)
TARGET = 3000
"""Pages a minute that the crawler is to reach on two cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    folders = arguments.folders or [Path(name) for name in DEBIAN if Path(name, "index.html").is_file()]
    if not folders:
        sys.exit("no folder to serve: name one, or install python3-doc, sqlite3-doc and postgresql-doc")
    ours, peer = [], []
    with Server(folders) as port, tempfile.TemporaryDirectory() as work:
        for turn in range(arguments.turns):
            pages, wall_s, cpu_s = crawl(port, Path(work, f"ours-{turn}"))
            ours.append(60 * pages / wall_s)
            line = f"turn {turn + 1}: {pages:,} pages in {wall_s:.1f} s: {ours[-1]:,.0f} a minute"
            line += f" ({60 * pages / cpu_s:,.0f} a minute of CPU)"
            if shutil.which("wget"):
                num_files, wget_s = wget(port, Path(work, f"wget-{turn}"))
                peer.append(60 * num_files / wget_s)
                line += f"; wget {num_files:,} files in {wget_s:.1f} s: {peer[-1]:,.0f}/min"
            print(line, flush=True)
    result = {
        "name": "crawl",
        "unit": "pages a minute on loopback",
        "ours": round(sorted(ours)[len(ours) // 2]),
        "peer": round(sorted(peer)[len(peer) // 2]) if peer else TARGET,
        "peer_name": "wget -r (files only, one connection)" if peer else "the figure to reach",
    }
    ratios = sorted(one / other for one, other in zip(ours, peer or [TARGET] * len(ours), strict=True))
    result |= {
        "ratio": round(ratios[len(ratios) // 2], 2),
        "ratio_low": round(ratios[0], 2),
        "ratio_high": round(ratios[-1], 2),
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(result))


def crawl(port: int, work: Path) -> tuple[int, float, float]:
    """Pages, wall and CPU seconds of one crawl with the project's crawler."""
    context = StageContext(
        stage="collect",
        seed=0,
        output=work / "output",
        scratch=work / "scratch",
        inputs={},
        reporter=PlainReporter(sys.stderr),
        metrics_path=work / "metrics.jsonl",
    )
    config = CollectConfig.model_validate(
        {
            "urls": [f"http://127.0.0.1:{port}/"],
            "max_pages": None,
            "crawl": {
                "delay_s": 0,
                "max_depth": 100,
                "max_concurrency": 8,
                "max_concurrency_per_host": 8,
                "allow_private_hosts": True,
            },
        }
    )
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    metrics = collect(config, context)
    return metrics["pages"], time.monotonic() - started_s, time.process_time() - started_cpu_s


def wget(port: int, work: Path) -> tuple[int, float]:
    """HTML and text files, and wall seconds, of wget following the same links."""
    started_s = time.monotonic()
    subprocess.run(
        [
            *("wget", "-q", "-r", "-l", "inf", "-e", "robots=off", "-R", "png,gif,svg,jpg,css,js,pdf,ico,gz"),
            *("-P", str(work), f"http://127.0.0.1:{port}/"),
        ],
        check=False,
    )
    elapsed_s = time.monotonic() - started_s
    files = [path for path in work.rglob("*") if path.is_file() and path.suffix in (".html", ".htm", ".txt")]
    return len(files), elapsed_s


class Server:
    """The folders over HTTP in a process of their own; a context manager that gives the port."""

    def __init__(self, folders: list[Path]) -> None:
        here, there = multiprocessing.Pipe()
        self._port = here
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(
            target=serve, args=([str(each) for each in folders], there), daemon=True
        )

    def __enter__(self) -> int:
        self._process.start()
        return self._port.recv()

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()


def serve(folders: list[str], port: Connection) -> None:
    """Serve `/N/…` from the N-th folder for ever."""
    roots = [Path(folder).resolve() for folder in folders]
    index = "".join(f'<a href="/{number}/index.html">{number}</a> ' for number in range(len(roots))).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            number, _, rest = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
            body, media_type, status = b"gone", "text/plain", 404
            if not number:
                body, media_type, status = index, "text/html", 200
            elif (
                number.isdigit()
                and int(number) < len(roots)
                and (file := roots[int(number)] / rest).is_file()
            ):
                body, status = file.read_bytes(), 200
                media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self.send_response_only(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The benchmark says what matters."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A crawler hangs up on what it does not want."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        port.send(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    main()

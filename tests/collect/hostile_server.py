"""A server that misbehaves by the path it is asked for, on raw sockets."""

import gzip
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from functools import cache
from itertools import chain, repeat

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
PAGE = b"<html><p>words</p></html>"


def _drip(text: bytes, pause_s: float) -> Iterator[bytes]:
    for byte in text:
        time.sleep(pause_s)
        yield bytes([byte])


@cache
def _bomb(num_layers: int) -> bytes:
    body = bytes(30_000_000)
    for _ in range(num_layers):
        body = gzip.compress(body)
    return body


def answers() -> dict[str, Iterator[bytes]]:
    """Bytes to send for each path. What follows an answer is a closed connection."""
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    layers = b"Content-Encoding: " + b", ".join([b"gzip"] * 3)
    return {
        "/endless-chunks": chain([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], repeat(chunk, 100_000)),
        "/endless-body": chain([HEAD + b"\r\n"], repeat(b"x" * 65536, 100_000)),
        "/endless-headers": chain([HEAD], repeat(b"X-More: " + b"y" * 1000 + b"\r\n", 100_000)),
        "/one-endless-header": chain([HEAD, b"X-Long: "], repeat(b"y" * 65536, 10_000)),
        "/endless-interim": repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 3_000_000),
        "/drip": _drip(HEAD + b"Content-Length: 4000\r\n\r\n" + b"z" * 4000, 0.02),
        "/drip-headers": _drip(HEAD * 99, 0.02),
        "/silent": iter([b""]),
        "/never": _drip(b"  ", 30),
        "/longer-than-sent": iter([HEAD + b"Content-Length: 9999\r\n\r\n" + PAGE]),
        "/shorter-than-sent": iter([HEAD + b"Content-Length: 6\r\n\r\n" + PAGE]),
        "/negative-length": iter([HEAD + b"Content-Length: -5\r\n\r\n" + PAGE]),
        "/absurd-length": iter([HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + PAGE]),
        "/odd-length": iter([HEAD + b"Content-Length: \xb2\r\n\r\n" + PAGE]),
        "/two-lengths": iter([HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + PAGE]),
        "/cut-chunks": iter([HEAD + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + PAGE]),
        "/bad-chunks": iter([HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + PAGE]),
        "/huge-chunk": iter([HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n" + PAGE]),
        "/bomb": iter([HEAD + b"Content-Encoding: gzip\r\n\r\n" + _bomb(1)]),
        "/layered-bomb": iter([HEAD + layers + b"\r\n\r\n" + _bomb(3)]),
        "/false-gzip": iter([HEAD + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08" + b"\xff" * 99]),
        "/no-http": iter([b"SSH-2.0-OpenSSH_9.2\r\n"]),
        "/status-line": iter([b"HTTP/1.1 2000000 OK\r\n\r\n"]),
        "/nul-header": iter([HEAD + b"X: a\0b\r\n\r\n" + PAGE]),
        "/switch": iter([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"]),
        "/latin": iter([HEAD + b"X-Name: J\xf6rg\r\nContent-Length: 25\r\n\r\n" + PAGE]),
        "/forever-elsewhere": iter(
            [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /forever-elsewhere\r\n\r\n"]
        ),
        "/far-away": iter(
            [
                b"HTTP/1.1 302 Found\r\nLocation: http://[::bad/"
                + b"x" * 5000
                + b"\r\nContent-Length: 0\r\n\r\n"
            ]
        ),
        "/good": iter([HEAD + b"Content-Length: 25\r\n\r\n" + PAGE]),
    }


class HostileServer(socketserver.ThreadingTCPServer):
    """Serves `answers()`; `/` links to all of them, `/robots.txt` and the like are missing."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths = list(answers())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "HostileServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """The crawler hangs up; that is no news."""


class _Handler(socketserver.BaseRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        request = self.request.recv(65536)
        path = request.split(b" ")[1].decode() if request.count(b" ") > 1 else "?"
        if path == "/":
            body = "".join(f'<a href="{path}">x</a>' for path in self.server.paths).encode()
            pieces = iter([HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body])
        else:
            missing = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            pieces = answers().get(path, iter([missing]))
        for piece in pieces:
            self.request.sendall(piece)
        self.request.shutdown(socket.SHUT_RDWR)

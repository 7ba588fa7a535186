"""A crawl of servers that misbehave: every fault is named, bounded in time and memory, and costs one page."""

import gzip
import json
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from collect_helpers import HOST, Answer, Site, crawl_config, html_page, paths_of, stage_context
from hostile_server import HostileServer

from bessemer.collect import collect
from bessemer.errors import BessemerError

TIMEOUT_S = 6
"""The misbehaviour that has an end of its own must come to it sooner, on a busy machine too."""
TIMEOUT = f"timeout: no whole answer in {TIMEOUT_S} s"
REASONS = {
    "/endless-chunks": "too long: a body of more than 100000 bytes",
    "/endless-body": "too long: a body of more than 100000 bytes",
    "/endless-headers": "malformed answer",
    "/one-endless-header": "malformed answer",
    "/endless-interim": TIMEOUT,
    "/drip": TIMEOUT,
    "/drip-headers": TIMEOUT,
    "/never": TIMEOUT,
    "/silent": ("malformed answer", "timeout"),  # on a busy machine the deadline comes first
    "/longer-than-sent": "malformed answer",
    "/negative-length": "malformed answer",
    "/absurd-length": "too long",
    "/odd-length": "malformed answer",
    "/two-lengths": "malformed answer",
    "/cut-chunks": "malformed answer",
    "/bad-chunks": "malformed answer",
    "/huge-chunk": "malformed answer",
    "/bomb": "bad body: decompresses to more than 1000000 bytes",
    "/layered-bomb": "bad body: decompresses to more than 1000000 bytes",
    "/no-http": "malformed answer",
    "/status-line": "malformed answer",
    "/nul-header": "malformed answer",
    "/switch": "malformed answer",
    "/forever-elsewhere": "redirect loop",
    "/far-away": "redirect: to nowhere",
}


def reasons_of(output) -> dict[str, str]:
    lines = map(json.loads, (output / "crawl.jsonl").read_text().splitlines())
    return {line["url"].removeprefix(f"http://{HOST}"): line["reason"] for line in lines}


def test_every_kind_of_misbehaviour_costs_one_page_and_little_else(tmp_path):
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with HostileServer() as server:
        config = crawl_config(
            server.address,
            "/",
            timeout_s=TIMEOUT_S,
            max_bytes=100_000,
            max_decoded_bytes=1_000_000,
            max_retries=0,
            max_host_failures=0,
            max_concurrency_per_host=8,
            max_retry_delay_s=0.01,
        )
        collect(config, stage_context(tmp_path))
    elapsed_s = time.monotonic() - started
    reasons = reasons_of(tmp_path / "output")
    assert {
        path: reason for path, reason in reasons.items() if not reason.startswith(REASONS.get(path, "?"))
    } == {}
    assert set(reasons) == set(REASONS)
    assert paths_of(tmp_path / "output") == ["/", "/shorter-than-sent", "/false-gzip", "/latin", "/good"]
    assert elapsed_s < 70, "the slow answers take 80 s and more"
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    assert grown_mib < 150, "the test's own bombs take 30 MB each while they are made"


def accept_once(answer: bytes) -> str:
    """A socket that answers every connection with these bytes and hangs up. Returns its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the crawler may hang up first
                connection.recv(4096)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def failure_of(folder, address: str) -> str:
    config = crawl_config(address, "/", max_retries=0)
    config = config.model_copy(update={"urls": (f"https://{HOST}/",)})
    with pytest.raises(BessemerError) as raised:
        collect(config, stage_context(folder))
    return str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x16\x03\x03\x00\x10" + bytes(16),
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
)
def test_broken_tls_is_a_failure_of_the_host_and_no_more(tmp_path, answer):
    assert "robots.txt unreachable: connection failed" in failure_of(tmp_path, accept_once(answer))


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", f"/CN={HOST}", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Site({"/": html_page()}) as site:
        site.socket = context.wrap_socket(site.socket, server_side=True)
        assert "CERTIFICATE_VERIFY_FAILED" in failure_of(tmp_path, site.address)
        assert site.asked.total() == 0


def test_a_bomb_in_robots_txt_or_a_sitemap_closes_or_ends_there(tmp_path):

    bomb = Answer(gzip.compress(bytes(60_000_000)), headers={"Content-Encoding": "gzip"})
    with Site({"/": html_page()}, robots=bomb) as site:
        collect(crawl_config(site.address, "/"), stage_context(tmp_path / "a"))
        assert paths_of(tmp_path / "a" / "output") == ["/"], "zeros hold no rule, and only 500 KiB are read"
    rules = Answer(f"Sitemap: http://{HOST}/s.xml".encode(), content_type="text/plain")
    with Site({"/": html_page(), "/s.xml": bomb}, robots=rules) as site:
        collect(crawl_config(site.address, "/"), stage_context(tmp_path / "b"))
        assert reasons_of(tmp_path / "b" / "output")["/s.xml"].startswith("sitemap: decompresses to more")

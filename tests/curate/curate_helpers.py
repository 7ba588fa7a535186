"""Small worlds for the tests: WARC files, stage contexts, texts of a wanted size and similarity."""

import random
import re
from collections.abc import Iterable
from pathlib import Path

from bessemer.formats.warc_writer import WarcHead, WarcWriter
from bessemer.runner.context import StageContext
from bessemer.runner.manifest import Artifact, Cost, Manifest

DATE = "2024-05-01T00:00:00Z"
WEB_SAMPLES = Path(__file__).parents[2] / ".." / "shared" / "data" / "web"

_NOUNS = re.findall(
    r"\w+",
    """
river mountain teacher window garden letter engine market bridge farmer island doctor harbour forest painter
ladder castle basket village captain mirror orchard station lantern carpenter meadow library violin shepherd
kitchen tower blanket merchant valley hammer soldier cottage feather kettle neighbour""",
)
_ADJECTIVES = re.findall(
    r"\w+",
    """
old quiet narrow bright heavy distant green wooden careful early frozen golden hollow gentle crooked famous
empty silver patient broken curious humble rusty velvet lonely clever dusty pleasant sudden tender bitter
polite ancient hungry modest nervous proud shallow sturdy""",
)
_VERBS = re.findall(
    r"\w+",
    """
crosses watches repairs describes follows carries measures paints remembers answers borrows cleans defends
examines forgets greets hides ignores joins keeps leaves mentions notices opens praises questions reaches
searches touches understands visits washes admires builds collects delivers enjoys finds guards""",
)


class SilentProgress:
    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None: ...
    def __enter__(self) -> "SilentProgress":
        return self

    def __exit__(self, *error: object) -> None: ...


class Recorder:
    """Keeps what the stage said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, description: str, total: float | None, unit: str) -> SilentProgress:
        return SilentProgress()


def stage_context(pages: Path, work: Path, digest: str = "0" * 64) -> StageContext:
    """A context that reads WARC files from `pages` and writes below `work`."""
    manifest = Manifest(
        kind="pages",
        stage="collect",
        stage_kind="collect",
        format_version=1,
        digest=digest,
        key="",
        inputs={},
        input_stages={},
        config={},
        seed=0,
        versions={},
        files=[],
        metrics={},
        cost=Cost(),
        created_at="",
    )
    for folder in (work / "output", work / "scratch"):
        folder.mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage="curate",
        seed=0,
        output=work / "output",
        scratch=work / "scratch",
        inputs={"pages": [Artifact(pages, manifest)]},
        reporter=Recorder(),
        metrics_path=work / "metrics.jsonl",
    )


def write_pages(folder: Path, pages: Iterable[tuple[str, str, bytes]]) -> None:
    """Pages (url, content type, body) as HTTP responses in one WARC file, each with its request."""
    with WarcWriter(folder, WarcHead(DATE, {"software": "test"}), 1 << 30) as warc:
        for url, content_type, body in pages:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
            warc.write_exchange(url, DATE, b"GET / HTTP/1.1\r\n\r\n", head + body, body)


def html_page(title: str, paragraphs: Iterable[str]) -> bytes:
    body = "".join(f"<p>{paragraph}</p>\n" for paragraph in paragraphs)
    return f"<html><head><title>{title}</title></head><body><main>{body}</main></body></html>".encode()


def sentence(random_: random.Random) -> str:
    """An English sentence of ten words; two are hardly ever equal."""
    choose = random_.choice
    return (
        f"The {choose(_ADJECTIVES)} {choose(_NOUNS)} {choose(_VERBS)} the {choose(_ADJECTIVES)} "
        f"{choose(_NOUNS)} with the {choose(_NOUNS)}{random_.randrange(1000)}."
    )


def prose(seed: int, num_sentences: int = 40) -> list[str]:
    """Sentences that pass every rule of the default config."""
    random_ = random.Random(seed)
    return [sentence(random_) for _ in range(num_sentences)]


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

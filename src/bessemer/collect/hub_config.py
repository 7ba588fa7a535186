"""Which data set of the Hugging Face hub to collect."""

import re

from pydantic import Field, field_validator

from bessemer.config import Bytes, Config

_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


class HubConfig(Config):
    """Files of a data set repository: Parquet, Arrow, JSON lines, or documents. Scripts are never run."""

    dataset: str
    """Name, such as `user/corpus`."""
    revision: str = "main"
    """Branch, tag or commit; the commit it stands for is written into the manifest."""
    files: tuple[str, ...] = ()
    """Names or patterns of the repository's files, such as `data/train-*`. Default: all that can be read."""
    max_files: int | None = Field(default=None, ge=1)
    """Take only so many of them, from the first name on."""
    max_bytes: Bytes = Field(default=20 << 30, ge=1)
    """The stage stops before it fetches more than this."""
    endpoint: str = "https://huggingface.co"
    """Where the hub is. A token for private data sets is taken from the environment variable HF_TOKEN."""

    @field_validator("dataset")
    @classmethod
    def _is_a_name(cls, dataset: str) -> str:
        if not _DATASET.fullmatch(dataset):
            raise ValueError(f"{dataset!r} is no name of a data set; write it as user/name")
        return dataset

    @field_validator("revision")
    @classmethod
    def _is_a_revision(cls, revision: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}", revision) or ".." in revision:
            raise ValueError(f"{revision!r} is no branch, tag or commit")
        return revision

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, endpoint: str) -> str:
        if not re.match(r"https?://[^/\s]+", endpoint):
            raise ValueError(f"{endpoint!r} is no http(s) URL")
        return endpoint.rstrip("/")

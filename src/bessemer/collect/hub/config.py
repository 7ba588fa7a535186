"""Which data set of the Hugging Face hub to collect."""

import re

from pydantic import Field, field_validator, model_validator

from bessemer.config import Bytes, Config, Seconds

_DATASET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")


class HubConfig(Config):
    """Files of a data set repository: Parquet, Arrow, JSON lines, or documents. Scripts are never run."""

    dataset: str
    """Name, such as `user/corpus`."""
    revision: str = "main"
    """Branch, tag or commit. What commit it stands for is pinned when the stage begins, and recorded."""
    subset: str | None = None
    """A configuration that the data set's card names. Default: the one that the card marks as default."""
    split: str | None = None
    """Default: `train` where there is one, else every file; `all` takes every split."""
    files: tuple[str, ...] = ()
    """Names or patterns of files instead: `data/train-*`; `*` stays within a folder, `**` does not."""
    max_files: int | None = Field(default=None, ge=1)
    """Take only so many of them, from the first name on."""
    max_bytes: Bytes = Field(default=20 << 30, ge=1)
    """The stage stops before it fetches a choice of files that is larger than this in all."""
    endpoint: str | None = None
    """Where the hub is. Default: HF_ENDPOINT, else https://huggingface.co. A token is taken from HF_TOKEN."""
    max_retries: int = Field(default=8, ge=0)
    """Further attempts after 429, 5xx, failed connections and stalls; downloads continue where they were."""
    retry_delay_s: Seconds = Field(default=1.0, ge=0)
    """Wait before the first retry, doubled each time up to five minutes, less up to half of it by chance."""

    @field_validator("dataset")
    @classmethod
    def _is_a_name(cls, dataset: str) -> str:
        if not _DATASET.fullmatch(dataset) or ".." in dataset or "--" in dataset:
            raise ValueError(f"{dataset!r} is no name of a data set; write it as user/name")
        return dataset

    @field_validator("revision")
    @classmethod
    def _is_a_revision(cls, revision: str) -> str:
        if not _REVISION.fullmatch(revision) or ".." in revision:
            raise ValueError(f"{revision!r} is no branch, tag or commit")
        return revision

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.match(r"https?://[^/\s]+", endpoint):
            raise ValueError(f"{endpoint!r} is no http(s) URL")
        return endpoint.rstrip("/") if endpoint else endpoint

    @model_validator(mode="after")
    def _chooses_one_way(self) -> "HubConfig":
        if self.files and (self.subset or self.split):
            raise ValueError("files names the files itself; leave out subset and split")
        return self

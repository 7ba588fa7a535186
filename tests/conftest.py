"""What every test shares: one thread for torch, so that parallel test workers do not fight for cores."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Spinning worker threads of several processes on the same cores cost more than they compute."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package keeps in the user's cache folder goes to a temporary one."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bessemer.training.peak.cache_root", lambda: folder)
        yield

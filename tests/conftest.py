"""What every test shares: one thread for torch, so that parallel test workers do not fight for cores."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Spinning worker threads of several processes on the same cores cost more than they compute."""
    import torch

    torch.set_num_threads(1)

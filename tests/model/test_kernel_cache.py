import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, torch
from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch

config = ModelConfig(
    vocab_size=1024, hidden_size=256, intermediate_size=96, num_hidden_layers=1,
    num_attention_heads=4, num_key_value_heads=2, qk_norm=True,
)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.bfloat16):
    torch.manual_seed(0)
    model = Transformer(config, dtype).initialize(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    tokens = torch.randint(0, 1024, (8, 33))
    documents, positions = (torch.arange(32) // 20).expand(8, -1), (torch.arange(32) % 20).expand(8, -1)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), documents, positions)
    LanguageModeling().loss(model, batch).total.backward()
    for parameter in model.parameters():
        digest.update(parameter.grad.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_kernels_just_compiled_and_from_the_disk_cache_give_the_same_bytes(tmp_path):
    """A run that is killed in the process that compiled its kernels continues with those of the cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT]
    compiled, cached = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbi")), "nothing was cached"
    assert compiled == cached

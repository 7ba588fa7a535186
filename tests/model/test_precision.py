import time

import pytest
import torch

from bessemer.model.precision import has_native_bfloat16, resolve_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_has_it(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert resolve_dtype("auto", CPU) == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_named_type_is_taken_as_it_is(name):
    assert resolve_dtype(name, CPU) == getattr(torch, name)


def test_other_devices_compute_in_float32():
    assert not has_native_bfloat16(torch.device("mps"))


def test_the_automatic_type_is_never_an_emulated_one():
    def seconds(dtype):
        a, b = torch.randn(256, 256).to(dtype), torch.randn(256, 256).to(dtype)
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            a @ b
            taken.append(time.perf_counter() - started)
        return min(taken)

    # Emulation is 30 to 100 times slower; native bfloat16 is never 10 times slower than float32.
    assert seconds(resolve_dtype("auto", CPU)) < 10 * seconds(torch.float32)

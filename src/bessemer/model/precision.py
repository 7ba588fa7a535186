"""Which type the matrix products run in.

Without instructions for it, bfloat16 is emulated: on two AVX2 cores a product of 2048×256 by 256×768
takes 660 ms in bfloat16 and 8 ms in float32. So the type is asked of the hardware, not assumed.
"""

from typing import Literal

import torch

ComputeDtype = Literal["auto", "bfloat16", "float16", "float32"]
"""`auto` is bfloat16 where the device multiplies it natively, else float32."""


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware: AVX512-BF16 or AMX on x86, the bf16 extension on ARM,
    compute capability 8.0 and later on CUDA."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))


def resolve_dtype(name: ComputeDtype, device: torch.device) -> torch.dtype:
    """The torch dtype that a config's `compute_dtype` means on a device."""
    if name == "auto":
        return torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[name]

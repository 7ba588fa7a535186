"""Recomputation and compilation of blocks: equal gradients, less kept, and a way without a compiler."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import bessemer.training.compiled as compiled_module
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import row_of_conversations, stack_rows
from bessemer.training.compiled import compiled, plain
from bessemer.training.recompute import RecomputeConfig, recompute
from model_helpers import gradients, tiny_model

LAYERS = 4


class CountProducts(TorchDispatchMode):
    """Counts the products with weights."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def batch():
    items = [(list(range(3, 3 + n)), [False, *([True] * (n - 1))]) for n in (9, 12, 7, 14)]
    return stack_rows([row_of_conversations(items[:2], 24, 60), row_of_conversations(items[2:], 24, 60)])


def work(around_block, dtype=torch.float32):
    """Gradients, bytes kept for the backward pass, and products in the backward pass."""
    model = tiny_model(num_layers=LAYERS)
    model.compute_dtype = dtype
    model.around_block = around_block
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = LanguageModeling().loss(model, batch()).total
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with CountProducts() as products:
        loss.backward()
    return gradients(model), sum(size for place, size in kept.items() if place not in own), products.count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config",
    [
        RecomputeConfig(kind="full"),
        RecomputeConfig(kind="full", every=2),
        RecomputeConfig(kind="selective"),
        RecomputeConfig(kind="selective", every=3),
    ],
    ids=str,
)
def test_recomputed_gradients_are_the_same_bit_by_bit(config, dtype):
    reference, found = work(None, dtype)[0], work(recompute(config, plain), dtype)[0]
    for name, gradient in reference.items():
        assert float(gradient.norm()) > 0
        assert torch.equal(gradient, found[name]), name


def test_full_recomputation_does_every_product_of_a_block_again_and_selective_none():
    plain_count = work(None)[2]
    assert work(recompute(RecomputeConfig(kind="full"), plain))[2] > plain_count
    assert work(recompute(RecomputeConfig(kind="selective"), plain))[2] == plain_count
    half = work(recompute(RecomputeConfig(kind="full", every=2), plain))[2]
    whole = work(recompute(RecomputeConfig(kind="full"), plain))[2]
    assert (half - plain_count) * 2 == whole - plain_count


def test_recomputation_keeps_less():
    everything = work(None)[1]
    half = work(recompute(RecomputeConfig(kind="full", every=2), plain))[1]
    nothing = work(recompute(RecomputeConfig(kind="full"), plain))[1]
    assert nothing < half < everything
    assert nothing < 0.5 * everything


def test_without_a_compiler_one_line_is_said_and_training_goes_on(monkeypatch):
    said = []

    def no_compiler(*args, **kwargs):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    monkeypatch.setattr(compiled_module.torch, "compile", no_compiler)
    around = compiled(said.append)
    assert said == [
        "compile: no working compiler (RuntimeError: Failed to find C compiler.); training goes on without"
    ]
    reference, found = work(None)[0], work(around)[0]
    assert all(torch.equal(reference[name], found[name]) for name in reference)


def test_only_training_is_compiled_for_validations_and_samples_have_ever_other_shapes(monkeypatch):
    calls = []
    monkeypatch.setattr(compiled_module, "_why_not", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda run, **options: lambda *a: calls.append(1) or run(*a))
    model = tiny_model()
    model.around_block = compiled(print)
    token_ids = torch.ones(1, 4, dtype=torch.long)
    with torch.no_grad():
        model(token_ids)
    assert not calls
    model(token_ids)
    assert calls


def test_a_block_that_cannot_be_compiled_runs_as_it_is(monkeypatch):
    said = []

    def broken(*args):
        raise RuntimeError("cannot trace")

    monkeypatch.setattr(compiled_module, "_why_not", lambda: None)
    monkeypatch.setattr(compiled_module.torch, "compile", lambda f, **options: broken)
    around = compiled(said.append)
    reference, found = work(None)[0], work(around)[0]
    assert said == ["compile: failed (RuntimeError: cannot trace); training goes on without"]
    assert all(torch.equal(reference[name], found[name]) for name in reference)


@pytest.mark.slow
def test_compiled_blocks_have_the_gradients_of_plain_ones():
    said = []
    found = work(compiled(said.append))[0]
    if said:
        pytest.skip(said[0])
    reference = work(None)[0]
    for name, gradient in reference.items():
        assert float((gradient - found[name]).norm() / gradient.norm()) < 1e-4, name

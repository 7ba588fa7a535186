"""Mixtures, curricula, mid-training and early stopping, through the stages themselves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.folder import load_model, save_model
from bessemer.model.transformer import Transformer
from bessemer.model.weights import FolderWeights, SavedWeights
from bessemer.tokenization.tokenizer import train_bpe
from bessemer.tokenization.tokens_stage import TokensConfig, encode_tokens
from bessemer.training.average import AverageConfig
from bessemer.training.config import Cadence
from bessemer.training.corpora import CorpusConfig
from bessemer.training.dial import ModelDial
from bessemer.training.early_stop import EarlyStop, EarlyStopConfig
from bessemer.training.held_out import VALIDATION
from bessemer.training.midtrain import MidtrainConfig, midtrain
from bessemer.training.parallel.materialize import materialize
from bessemer.training.parallel.ranks import Alone
from bessemer.training.pretrain import PretrainConfig, pretrain
from model_helpers import tiny_model
from stage_helpers import artifact, contents, said, stage_context, write_documents

BASE = PretrainConfig(
    model=ModelDial(depth=1, hidden_size=32, num_attention_heads=2, max_position_embeddings=48),
    tokens=768,
    sequence_length=32,
    batch_tokens=128,
    every=Cadence(log=1, check=3, checkpoint=2),
    sample_prompts=(),
)
MID = MidtrainConfig(
    tokens=1024,
    sequence_length=64,
    batch_tokens=128,
    every=Cadence(log=1, check=4, checkpoint=2, milestone=4),
    sample_prompts=(),
    mixture={"web": 1.0, "code": 1.0},
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    corpora = {
        "web": [(f"web{n}", f"The number {n} is said to be a number. It is {n % 3}.") for n in range(40)],
        "code": [(f"code{n}", f"def f{n}(x):\n    return x + {n} * x - {n % 7}\n") for n in range(40)],
    }
    train_bpe((text for rows in corpora.values() for _, text in rows), 290).save(folder / "tokenizer")
    tokenizer = artifact(folder / "tokenizer", "tokenizer")
    found = [tokenizer]
    for name, rows in corpora.items():
        documents = write_documents(folder / f"{name}-documents", [rows])
        context = stage_context(folder / name, documents, tokenizer)
        encode_tokens(TokensConfig(validation_share=0.2), context)
        found.append(artifact(context.output, "tokens", name))
    base = stage_context(folder / "base", *found, stage="base")
    pretrain(BASE, base)
    return [*found, artifact(base.output, "model", "base")]


def logged(context):
    return [json.loads(line) for line in context.metrics_path.read_text().splitlines()]


def test_without_a_mixture_the_nearest_tokens_alone_are_used(inputs, tmp_path):
    context = stage_context(tmp_path, *inputs)
    pretrain(BASE, context)
    rows = logged(context)
    assert any(VALIDATION in row for row in rows)
    assert not any(name.startswith(f"{VALIDATION}/") for row in rows for name in row)


def test_a_mixture_is_validated_on_each_of_its_corpora_and_on_their_mean(inputs, tmp_path):
    config = BASE.model_copy(update={"mixture": {"web": 1.0, "code": 3.0}})
    context = stage_context(tmp_path, *inputs)
    metrics = pretrain(config, context)
    each = [metrics[f"{VALIDATION}/{name}"] for name in ("web", "code")]
    assert metrics[VALIDATION] == pytest.approx(sum(each) / 2)
    assert each[0] != each[1]


def test_a_corpus_that_no_stage_makes_is_named_with_those_there_are(inputs, tmp_path):
    config = BASE.model_copy(update={"mixture": {"web": 1.0, "maths": 3.0}})
    with pytest.raises(BessemerError, match=r"names maths, and no earlier stage.*there are: web, code"):
        pretrain(config, stage_context(tmp_path, *inputs))


def test_shards_of_another_tokenizer_of_the_same_size_are_refused(inputs, tmp_path):
    tokenizer = inputs[0]
    other = replace(tokenizer, manifest=tokenizer.manifest.model_copy(update={"digest": "other"}))
    with pytest.raises(BessemerError, match="shards of 'code' were encoded with another tokenizer"):
        pretrain(BASE, stage_context(tmp_path, other, *inputs[1:]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixture": {"web": -1.0}}, "weights are numbers from 0"),
        ({"mixture": {"web": 0.0}}, "all weights are 0"),
        ({"curriculum": [{"after": 0.5, "mixture": {"web": 1.0}}]}, "say in `mixture` how it begins"),
        (
            {
                "mixture": {"a": 1},
                "curriculum": [{"after": 0.5, "mixture": {"a": 1}}, {"after": 0.2, "mixture": {"a": 1}}],
            },
            "in the order of `after`",
        ),
        ({"micro_batches": 2, "micro_batch_tokens": 512}, "two ways to say the same"),
        ({"mixture": {"web": 5000.0, "code": 1.0}}, "mixture: code has less than one row in 1,024"),
        ({"sample_prompts": ["The", ""]}, "sample_prompts: an empty text has nothing to continue"),
    ],
)
def test_contradictions_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        CorpusConfig.model_validate(values)


def test_midtraining_extends_positions_anneals_and_keeps_milestones(inputs, tmp_path):
    config = MID.model_copy(update={"rope_theta": 50_000.0, "packing": "best_fit"})
    context = stage_context(tmp_path, *inputs, stage="mid")
    metrics = midtrain(config, context)
    assert metrics["steps"] == 8
    shape = load_model(context.output).config
    assert (shape.max_position_embeddings, shape.rope_theta) == (64, 50_000.0)
    factors = [row["learning_rate_factor"] for row in logged(context) if "learning_rate_factor" in row]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] < 0.2
    milestone = load_model(context.output / "milestones" / "step-00000004")
    assert milestone.config == shape
    assert not torch.equal(milestone.embedding, load_model(context.output).embedding)
    assert "% padding" in said(context)


@pytest.mark.parametrize("changes", [{}, {"sequence_length": 32, "rope_theta": 5e4}])
def test_learnt_positions_cannot_be_extended(inputs, tmp_path, changes):
    shape = ModelConfig(
        family="gpt2", vocab_size=290, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=48,
    )  # fmt: skip
    model = Transformer(shape).initialize(0)
    save_model(model, tmp_path / "gpt2", tokenizer_folder=inputs[0].folder, generation={}, card="")
    context = stage_context(tmp_path, *inputs[:-1], artifact(tmp_path / "gpt2", "model"))
    with pytest.raises(BessemerError, match="learnt vectors for 48 positions"):
        midtrain(MID.model_copy(update=changes), context)


def test_a_longer_table_of_positions_leaves_what_the_model_computes_alone(tmp_path):
    model = tiny_model()
    save_model(model, tmp_path, tokenizer_folder=None, generation={}, card="")

    def changed(**shape) -> Transformer:
        other = Transformer.without_values(ModelConfig(**(model.config.model_dump() | shape)), torch.float32)
        materialize([other], FolderWeights(tmp_path), other.device)
        return other

    token_ids = torch.arange(20).unsqueeze(0)
    assert torch.equal(model(token_ids), changed(max_position_embeddings=999)(token_ids))
    assert not torch.equal(model(token_ids), changed(rope_theta=77.0)(token_ids))


def test_midtraining_with_everything_on_is_the_same_after_a_cut(inputs, tmp_path):
    """Mixture, curriculum, average, 8-bit state, growing batches, recomputation, micro-batches."""
    config = MidtrainConfig.model_validate(
        MID.model_dump()
        | {
            "curriculum": [{"after": 0.5, "mixture": {"code": 1.0}}],
            "average": {"decay": 0.9},
            "optimizer": {"state_bits": 8},
            "batch_warmup": {"start_tokens": 64, "steps": 3},
            "micro_batch_tokens": 64,
            "recompute": {"kind": "selective"},
            "guard": {"spikes": "rewind"},
        }
    )
    whole = stage_context(tmp_path / "whole", *inputs, stage="mid")
    metrics = midtrain(config, whole)

    class Cut(Exception):
        pass

    class Dying(type(whole)):
        def log(self, step, **values):
            super().log(step, **values)
            if step == 6:
                raise Cut

    cut = stage_context(tmp_path / "cut", *inputs, stage="mid")
    with pytest.raises(Cut):
        midtrain(config, Dying(**vars(cut)))
    again = midtrain(config, cut)
    one, two = contents(whole.output), contents(cut.output)
    for files in (one, two):
        del files["metrics.jsonl"]
    assert one.keys() == two.keys()
    assert one == two
    measured = ("tokens_per_s",)
    assert {k: v for k, v in metrics.items() if k not in measured} == {
        k: v for k, v in again.items() if k not in measured
    }


def test_a_model_of_another_tokenizer_is_refused(inputs, tmp_path):
    train_bpe(iter(["quite other text"]), 290).save(tmp_path / "other")
    other = artifact(tmp_path / "other", "tokenizer")
    with pytest.raises(BessemerError, match="has another tokenizer than the token shards"):
        midtrain(MID, stage_context(tmp_path / "work", other, *inputs[1:]))


def test_the_average_is_what_is_exported(inputs, tmp_path):
    models = {}
    for export in ("last", "average"):
        config = BASE.model_copy(update={"average": AverageConfig(decay=0.9, export=export)})
        context = stage_context(tmp_path / export, *inputs)
        pretrain(config, context)
        models[export] = load_model(context.output)
    plain = stage_context(tmp_path / "plain", *inputs)
    pretrain(BASE, plain)
    assert torch.equal(models["last"].embedding, load_model(plain.output).embedding)
    assert not torch.equal(models["average"].embedding, models["last"].embedding)


def test_milestones_hold_the_weights_that_are_exported(inputs, tmp_path):
    models = {}
    for average in (None, AverageConfig(decay=0.9, export="last"), AverageConfig(decay=0.9)):
        every = Cadence(log=1, check=3, checkpoint=2, milestone=2)
        context = stage_context(tmp_path / str(average), *inputs)
        pretrain(BASE.model_copy(update={"average": average, "every": every}), context)
        name = average.export if average else "plain"
        models[name] = load_model(context.output / "milestones" / "step-00000004").embedding
    assert torch.equal(models["last"], models["plain"])
    assert not torch.equal(models["average"], models["plain"])


def early_stop(tmp_path, **values):
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny_model().state_dict().items()}
    return EarlyStop(EarlyStopConfig(**values), "score", tmp_path / "best.safetensors", shapes)


def test_the_best_weights_are_kept_and_the_run_stops_after_its_patience(tmp_path):
    stop, model = early_stop(tmp_path, patience=2), tiny_model()
    stops = []
    for number, score in enumerate([3.0, 2.0, 2.5, 1.9, 1.95, 2.0]):
        with torch.no_grad():
            model.final_norm.fill_(float(number))
        stop.saw({"score": score, "other": number}, model.state_dict())
        stops.append(stop.should_stop())
    assert stops == [False, False, False, False, False, True]
    assert stop.best == {"score": 1.9, "other": 3}
    Alone().fill(model, SavedWeights(model.config, stop.path), stop.shapes)
    assert model.final_norm[0].item() == 3.0
    resumed = early_stop(tmp_path, patience=2)
    resumed.from_json(json.loads(json.dumps(stop.to_json())))
    assert resumed.should_stop()


def test_after_a_rewind_the_best_weights_are_those_of_the_best_value(tmp_path):
    """A better validation in between has overwritten the file, and is gone with the data left out."""
    stop, model = early_stop(tmp_path), tiny_model()
    stop.saw({"score": 2.0}, model.state_dict())
    at_checkpoint = json.loads(json.dumps(stop.to_json()))
    stop.from_json(at_checkpoint)
    assert stop.best == {"score": 2.0}
    stop.saw({"score": 1.0}, model.state_dict())
    stop.from_json(at_checkpoint)
    with torch.no_grad():
        model.final_norm.fill_(7.0)
    stop.saw({"score": 3.0}, model.state_dict())
    assert stop.best == {"score": 3.0}
    assert load_file(stop.path)["final_norm"][0].item() == 7.0


def test_a_gain_too_small_to_count_is_no_new_best(tmp_path):
    stop, model = early_stop(tmp_path, patience=1, least_gain=0.1), tiny_model()
    stop.saw({"score": 2.0}, model.state_dict())
    stop.saw({"score": 1.9}, model.state_dict())
    assert stop.should_stop()


def test_a_run_that_overfits_stops_and_keeps_its_best_weights(inputs, tmp_path):
    config = BASE.model_copy(
        update={
            "tokens": 60_000,
            "early_stop": EarlyStopConfig(patience=2),
            "every": Cadence(log=10, check=10, checkpoint=20),
            "optimizer": BASE.optimizer.model_copy(update={"learning_rate": 0.03}),
        }
    )
    context = stage_context(tmp_path, *inputs)
    metrics = pretrain(config, context)
    scores = [row[VALIDATION] for row in logged(context) if VALIDATION in row]
    assert metrics["steps"] < 60_000 // 128
    assert len(scores) == int(np.argmin(scores)) + 3
    assert metrics[VALIDATION] == min(scores)
    assert f"stopped after step {metrics['steps']}" in said(context)
    assert isinstance(load_model(context.output), Transformer)

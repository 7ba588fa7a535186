"""The pretrain, sft and dpo stages on a tiny model: what they write, refuse, and do after a kill."""

import json
import os
import signal

import numpy as np
import pytest

from bessemer.errors import BessemerError
from bessemer.formats.jsonl import write_jsonl
from bessemer.model.folder import load_model, save_model
from bessemer.model.transformer import Transformer
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import train_bpe
from bessemer.tokenization.tokens_stage import TokensConfig, encode_tokens
from bessemer.training.config import Cadence
from bessemer.training.dial import ModelDial, model_config
from bessemer.training.dpo import DpoConfig, dpo, read_pairs
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.pretrain import BASE_WIDTH, PretrainConfig, pretrain
from bessemer.training.sft import SftConfig, read_conversations, sft
from bessemer.training.watch import rewind_metrics
from stage_helpers import artifact, contents, killed, said, stage_context, write_documents

DIAL = ModelDial(depth=1, hidden_size=32, num_attention_heads=2, max_position_embeddings=96)
OFTEN = Cadence(log=1, check=4, checkpoint=2)
PRETRAIN = PretrainConfig(
    model=DIAL, tokens=768, sequence_length=32, batch_tokens=128, every=OFTEN, sample_prompts=("The",)
)
SFT = SftConfig(sequence_length=64, batch_tokens=128, epochs=1, every=OFTEN)
DPO = DpoConfig(sequence_length=96, batch_tokens=192, epochs=2, every=OFTEN)


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [{"messages": turns(f"What is {n}?", f"It is {n % 3}.")} for n in range(12)]
PAIRS = [
    {
        "prompt": turns(f"{n}?", "x")[:1],
        "chosen": turns("", f"Yes {n}.")[1:],
        "rejected": turns("", "No.")[1:],
    }
    for n in range(9)
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    corpus = [
        (f"d{n}", f"The number {n} is said to be a number. What is it? It is {n % 3}.") for n in range(40)
    ]
    train_bpe((text for _, text in corpus), 280).save(folder / "tokenizer")
    tokenizer = artifact(folder / "tokenizer", "tokenizer")
    documents = write_documents(folder / "documents", [corpus])
    tokens = stage_context(folder / "tokens", documents, tokenizer)
    encode_tokens(TokensConfig(validation_share=0.2), tokens)
    for kind, rows in (("conversations", CONVERSATIONS), ("preferences", PAIRS)):
        (folder / kind).mkdir()
        write_jsonl(folder / kind / f"{kind}.jsonl", rows)
    found = {
        "tokenizer": tokenizer,
        "tokens": artifact(tokens.output, "tokens"),
        "conversations": artifact(folder / "conversations", "conversations"),
        "preferences": artifact(folder / "preferences", "preferences"),
    }
    base = stage_context(folder / "base", *found.values(), stage="base")
    pretrain(PRETRAIN, base)
    return {**found, "model": artifact(base.output, "model", "base")}


def work_of(kind, inputs, folder) -> tuple[StageContext, dict]:
    context = stage_context(folder, *inputs.values(), stage=kind)
    run = {"pretrain": (pretrain, PRETRAIN), "sft": (sft, SFT), "dpo": (dpo, DPO)}[kind]
    return context, run[0](run[1], context)


def logged(context):
    return [json.loads(line) for line in context.metrics_path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["pretrain", "sft", "dpo"])
def test_a_stage_killed_in_the_middle_ends_with_the_same_model(kind, inputs, tmp_path):
    undisturbed, metrics = work_of(kind, inputs, tmp_path / "undisturbed")

    class Dying(type(undisturbed)):
        def log(self, step, **values):
            super().log(step, **values)
            if step == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    def work():
        context = stage_context(tmp_path / "killed", *inputs.values(), stage=kind)
        run = {"pretrain": (pretrain, PRETRAIN), "sft": (sft, SFT), "dpo": (dpo, DPO)}[kind]
        run[0](run[1], Dying(**vars(context)))

    assert killed(work)
    resumed, again = work_of(kind, inputs, tmp_path / "killed")
    one, two = contents(undisturbed.output), contents(resumed.output)
    logs = [[(row["step"], row.get("loss")) for row in logged(context)] for context in (undisturbed, resumed)]
    assert logs[0] == logs[1], "no step is logged twice, none is missing"
    for files in (one, two):
        del files["metrics.jsonl"]
    assert one == two
    assert {name: value for name, value in metrics.items() if name != "tokens_per_s"} == {
        name: value for name, value in again.items() if name != "tokens_per_s"
    }


def test_experts_windows_and_future_blocks_train_and_resume_to_the_same_bytes(inputs, tmp_path):
    experts = {
        "num_experts": 4,
        "experts_per_token": 2,
        "expert_size": 16,
        "shared_size": 16,
        "scores": "sigmoid",
    }
    dial = {"mixture": experts, "future_tokens": 1, "sliding_window": 8, "window_layers": (0,), "depth": 2}
    config = PRETRAIN.model_copy(
        update={
            "model": ModelDial(**{**DIAL.model_dump(exclude_none=True), **dial}),
            "optimizer": PRETRAIN.optimizer.model_copy(update={"base_width": 16}),
        }
    )

    class Dying(StageContext):
        def log(self, step, **values):
            super().log(step, **values)
            if step == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    def context(name, kind=StageContext):
        return kind(**vars(stage_context(tmp_path / name, *inputs.values(), stage="pretrain")))

    undisturbed = context("undisturbed")
    metrics = pretrain(config, undisturbed)
    assert killed(lambda: pretrain(config, context("killed", Dying)))
    resumed = context("killed")
    pretrain(config, resumed)
    rows = logged(undisturbed)
    assert {"next_token_loss", "expert_imbalance", "future_loss"} <= rows[0].keys()
    assert metrics["reload_logit_difference"] <= 1e-4
    one, two = contents(undisturbed.output), contents(resumed.output)
    for files in (one, two):
        files.pop("metrics.jsonl", None)
    assert one == two
    loaded = load_model(undisturbed.output)
    assert loaded.config.mixture.num_experts == 4
    assert loaded.blocks[1].mixture.selection_bias.abs().sum() > 0


def test_the_dpo_stage_starts_at_ln_2_and_counts_every_pair(inputs, tmp_path):
    plain = DPO.model_copy(update={"chosen_weight": 0.0, "compute_dtype": "float32"})
    context = stage_context(tmp_path, *inputs.values())
    metrics = dpo(plain, context)
    first = logged(context)[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert metrics["pairs"] == 9
    assert logged(context)[-1]["loss"] < first["loss"]


def test_sft_reports_what_it_learns_from(inputs, tmp_path):
    context, metrics = work_of("sft", inputs, tmp_path)
    assert metrics["conversations"] == 12
    assert 0 < metrics["supervised_share"] < 1
    assert metrics["reload_logit_difference"] <= 1e-4
    assert "12 conversations" in said(context)
    model = load_model(context.output)
    assert model.config == load_model(inputs["model"].folder).config
    generation = json.loads((context.output / "generation_config.json").read_text())
    assert generation["pad_token_id"] not in generation["eos_token_id"]


def test_pretraining_lowers_the_bits_of_held_out_documents(inputs, tmp_path):
    context, metrics = work_of("pretrain", inputs, tmp_path)
    assert metrics["steps"] == 6
    assert metrics["tokens"] == 768
    checks = [r["validation_bits_per_byte"] for r in logged(context) if "validation_bits_per_byte" in r]
    assert metrics["validation_bits_per_byte"] == checks[-1] < 8
    assert metrics["loss"] < np.log(280)


def test_a_penalty_on_the_loss_is_logged_apart_and_left_out_of_validations(inputs, tmp_path):
    """A step without a rate: both runs validate the same weights."""
    still = {"optimizer": OptimizerConfig(learning_rate=1e-30, muon_learning_rate=1e-30), "tokens": 128}
    rows = {}
    for z_loss in (0.0, 0.5):
        context = stage_context(tmp_path / str(z_loss), *inputs.values())
        pretrain(PRETRAIN.model_copy(update={**still, "z_loss": z_loss}), context)
        rows[z_loss] = {name: value for row in logged(context) for name, value in row.items()}
    plain, penalized = rows[0.0], rows[0.5]
    assert penalized["z_loss"] > 10, "0.5 (ln 280)^2"
    assert penalized["next_token_loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert penalized["loss"] == pytest.approx(plain["loss"] + penalized["z_loss"], rel=1e-5)
    assert penalized["validation_bits_per_byte"] == pytest.approx(plain["validation_bits_per_byte"], rel=1e-6)


def test_an_untied_embedding_starts_as_large_as_the_stage_is_told(inputs, tmp_path):
    """A step without a rate: what is written is what was drawn."""
    rates = ("learning_rate", "muon_learning_rate", "embedding_learning_rate")
    untied = DIAL.model_copy(update={"tie_word_embeddings": False})
    still = {"model": untied, "optimizer": OptimizerConfig(**dict.fromkeys(rates, 1e-30)), "tokens": 128}
    context = stage_context(tmp_path, *inputs.values())
    pretrain(PRETRAIN.model_copy(update={**still, "embedding_std": 1.0}), context)
    first = load_model(context.output).state_dict()
    assert [float(first[name].std()) for name in ("embedding", "head")] == pytest.approx([1, 0.02], rel=0.05)


def test_float16_on_a_processor_is_said_to_be_slow(inputs, tmp_path):
    context = stage_context(tmp_path, *inputs.values())
    pretrain(PRETRAIN.model_copy(update={"compute_dtype": "float16", "tokens": 128}), context)
    assert "many times slower: leave compute_dtype at auto" in said(context)


def test_micro_batches_of_a_stage_leave_loss_and_gradient_alone(inputs, tmp_path):
    """More parts than rows are fewer parts, not empty ones."""
    first_steps = []
    for micro_batches in (1, 2, 5):
        config = PRETRAIN.model_copy(update={"micro_batches": micro_batches, "compute_dtype": "float32"})
        context = stage_context(tmp_path / str(micro_batches), *inputs.values())
        pretrain(config, context)
        first_steps.append(logged(context)[0])
    for other in first_steps[1:]:
        for name in ("loss", "gradient_norm", "supervised"):
            assert other[name] == pytest.approx(first_steps[0][name], rel=1e-5), name


def test_rows_longer_than_the_model_knows_positions_are_refused(inputs, tmp_path):
    message = "sequence_length 97 is more than the model's 96 positions"
    for stage, config in ((pretrain, PRETRAIN), (sft, SFT), (dpo, DPO)):
        with pytest.raises(BessemerError, match=message):
            stage(
                config.model_copy(update={"sequence_length": 97}), stage_context(tmp_path, *inputs.values())
            )


@pytest.mark.parametrize("stage", [pretrain, sft, dpo])
def test_a_model_that_does_not_fit_the_memory_is_refused_by_every_stage(stage, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("bessemer.training.memory.free_bytes", lambda device: 1000)
    config = {pretrain: PRETRAIN, sft: SFT, dpo: DPO}[stage]
    with pytest.raises(BessemerError, match="the model does not fit"):
        stage(config, stage_context(tmp_path, *inputs.values()))


def test_a_model_with_fewer_embeddings_than_the_tokenizer_has_tokens_is_refused(inputs, tmp_path):
    small = Transformer(model_config(DIAL, vocab_size=270)).initialize(0)
    folder = tmp_path / "small"
    save_model(small, folder, tokenizer_folder=inputs["tokenizer"].folder, generation={}, card="")
    others = {**inputs, "model": artifact(folder, "model", "base")}
    for stage, config in ((sft, SFT), (dpo, DPO)):
        with pytest.raises(BessemerError, match="the tokenizer has 280 tokens and the model 270 embeddings"):
            stage(config, stage_context(tmp_path / "work", *others.values()))


def test_a_sample_prompt_without_room_for_an_answer_is_refused_before_training(inputs, tmp_path):
    context = stage_context(tmp_path, *inputs.values())
    with pytest.raises(BessemerError, match=r"sample_prompts: 'x{30}…' has 200 tokens and leaves no room"):
        pretrain(PRETRAIN.model_copy(update={"sample_prompts": ("The", "x" * 200)}), context)
    assert not context.metrics_path.exists()


def test_weights_that_are_not_finite_at_the_end_name_the_mend(inputs, tmp_path):
    config = PRETRAIN.model_copy(update={"optimizer": OptimizerConfig(kind="adamw", learning_rate=1e38)})
    with pytest.raises(BessemerError, match=r"weights that are not finite.*lower optimizer\.learning_rate"):
        pretrain(config, stage_context(tmp_path, *inputs.values()))


def test_a_conversation_that_does_not_fit_a_row_is_refused_not_cut(inputs, tmp_path):
    with pytest.raises(BessemerError, match=r"a row holds 16: raise sequence_length"):
        sft(SFT.model_copy(update={"sequence_length": 16}), stage_context(tmp_path, *inputs.values()))


def test_tokens_of_another_tokenizer_are_refused(inputs, tmp_path):
    train_bpe(iter(["other text"]), 262).save(tmp_path / "other")
    others = {**inputs, "tokenizer": artifact(tmp_path / "other", "tokenizer")}
    with pytest.raises(BessemerError, match="a vocabulary of 280, the tokenizer has 262"):
        pretrain(PRETRAIN, stage_context(tmp_path / "work", *others.values()))


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(iter(["some text"]), 262)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": turns("a", "b")[:1]}, "no assistant turn, so there is nothing to learn from"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "unknown role 'bot'"),
        ({"messages": "hello"}, "in a list"),
        ({"messages": [{"role": "user"}]}, "as a message"),
        ({"text": "x"}, "lacks messages"),
    ],
)
def test_a_bad_conversation_is_named_by_file_and_line(tokenizer, tmp_path, row, message):
    write_jsonl(tmp_path / "conversations.jsonl", [*CONVERSATIONS[:2], row])
    with pytest.raises(BessemerError, match=rf"conversations\.jsonl:3: .*{message}"):
        read_conversations(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "What is it?"}, "must be lists of messages"),
        ({"prompt": []}, "at least one message"),
        ({"chosen": [{"role": "user", "content": "x"}]}, "must each hold an assistant turn"),
        ({"rejected": [{"role": "robot", "content": "x"}]}, "unknown role 'robot'"),
    ],
)
def test_a_bad_pair_is_named_by_file_and_line(tokenizer, tmp_path, change, message):
    path = tmp_path / "preferences.jsonl"
    write_jsonl(path, [PAIRS[0], {**PAIRS[1], **change}])
    with pytest.raises(BessemerError, match=rf"preferences\.jsonl:2: .*{message}"):
        read_pairs(path, tokenizer)


def test_only_the_answers_of_a_pair_are_scored_not_earlier_turns(tokenizer, tmp_path):
    path = tmp_path / "preferences.jsonl"
    row = {"prompt": [*turns("a", "earlier"), turns("b", "")[0]], "chosen": turns("", "yes")[1:]}
    write_jsonl(path, [{**row, "rejected": turns("", "no")[1:]}])
    ((chosen, rejected),) = read_pairs(path, tokenizer)
    for side, text in ((chosen, "yes<|im_end|>"), (rejected, "no<|im_end|>")):
        scored = [id for id, is_scored in zip(side.token_ids, side.loss_mask, strict=True) if is_scored]
        assert tokenizer.decode(scored, skip_special=False) == text


def test_metrics_are_rewound_to_the_checkpoint_with_any_half_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    rewind_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    rewind_metrics(tmp_path / "none.jsonl", 2)


def test_one_dial_derives_the_shape_and_every_size_can_be_set():
    derived = model_config(ModelDial(depth=6), 1000)
    assert (derived.hidden_size, derived.num_attention_heads, derived.num_key_value_heads) == (384, 6, 3)
    assert derived.intermediate_size == 1024
    assert (
        model_config(ModelDial(depth=6, hidden_size=64, intermediate_size=100), 1000).intermediate_size == 100
    )
    assert model_config(ModelDial(depth=1, hidden_size=32), 1000).num_attention_heads == 1
    wide = ModelDial(depth=1, hidden_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=24)
    assert model_config(wide, 1000).head_dim == 24


@pytest.mark.parametrize(
    ("optimizer", "base_width"),
    [
        ({}, BASE_WIDTH),
        ({"kind": "adamw", "betas": (0.9, 0.99)}, BASE_WIDTH),
        ({"learning_rate": 1e-3}, None),
        ({"muon_learning_rate": 0.01}, None),
        ({"learning_rate": 1e-3, "base_width": 512}, 512),
        ({"base_width": None}, None),
    ],
)
def test_default_rates_of_pretraining_follow_the_width_and_given_ones_are_literal(optimizer, base_width):
    for given in (optimizer, OptimizerConfig(**optimizer)):
        config = PretrainConfig(optimizer=given)
        assert config.optimizer.base_width == base_width
        assert PretrainConfig.model_validate(config.model_dump(mode="json")) == config
    assert PretrainConfig().optimizer.base_width == BASE_WIDTH
    assert SftConfig().optimizer.base_width is None


@pytest.mark.parametrize("field", ["sequence_length", "batch_tokens", "micro_batches"])
def test_a_size_of_zero_is_refused_by_the_config(field):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        PretrainConfig.model_validate({field: 0})


@pytest.mark.slow
def test_pretraining_with_rows_split_over_processes_is_that_of_one(inputs, tmp_path):
    found = []
    # AdamW in float32: Muon in bfloat16 makes full steps of what rounding leaves in empty directions.
    alike = {"compute_dtype": "float32", "optimizer": OptimizerConfig(kind="adamw")}
    for name, layout in (("one", ParallelConfig()), ("split", ParallelConfig(context=2))):
        context = stage_context(tmp_path / name, *inputs.values())
        found.append(pretrain(PRETRAIN.model_copy(update={"parallel": layout, **alike}), context))
    for metric in ("loss", "validation_bits_per_byte"):
        assert found[1][metric] == pytest.approx(found[0][metric], rel=1e-4)
    assert found[1]["reload_logit_difference"] == 0.0


@pytest.mark.parametrize("way", ["context", "tensor", "pipeline"])
def test_preference_tuning_refuses_ways_that_work_on_rows(way):
    with pytest.raises(ValueError, match=rf"parallel\.{way} works on rows of tokens"):
        DpoConfig.model_validate({"parallel": {way: 2}, "batch_tokens": 4096})

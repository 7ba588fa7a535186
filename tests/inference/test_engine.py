import pytest
import torch
from transformers import AutoModelForCausalLM

from bessemer.errors import BessemerError
from bessemer.inference import Engine, SamplingParams
from bessemer.inference.cache import KeyValueCache, surviving_order
from bessemer.model import ModelConfig, Transformer, save_model

VOCAB_SIZE, PAD = 50, 49
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=12)
SAMPLED = SamplingParams(temperature=1.2, top_p=0.95, max_new_tokens=12)


def random_model(**options) -> Transformer:
    config = ModelConfig(
        **{
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "qk_norm": True,
            "max_position_embeddings": 64,
            **options,
        }
    )
    model = Transformer(config).initialize(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model() -> Transformer:
    return random_model()


SHAPES = {
    "windows": {"sliding_window": 5, "window_layers": (1,)},
    "experts": {"mixture": {"num_experts": 4, "experts_per_token": 2, "expert_size": 24}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "gpt2": {"family": "gpt2", "qk_norm": False, "num_key_value_heads": 4},
}


def ragged_prompts(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (count,), generator=generator).tolist()
    return [torch.randint(VOCAB_SIZE, (length,), generator=generator).tolist() for length in lengths]


def full_logits(model, token_ids):
    with torch.inference_mode():
        return model.logits(model(torch.tensor([token_ids])))[0]


def test_cached_decoding_gives_the_logits_of_a_full_forward(model):
    token_ids_BT = torch.tensor(
        [prompt for prompt in ragged_prompts(40) if len(prompt) >= 12][:3][0][:12]
    ).view(1, -1)
    cache = KeyValueCache(model.config, 1, 12, torch.float32, torch.device("cpu"))
    cache.open_rows(1)
    pieces = []
    with torch.inference_mode():
        for start, stop in ((0, 5), (5, 6), (6, 10), (10, 12)):  # prompt, token, chunk, chunk
            pieces.append(model.logits(model(token_ids_BT[:, start:stop], cache=cache)))
            cache.advance(stop - start)
    expected = full_logits(model, token_ids_BT[0].tolist())
    torch.testing.assert_close(torch.cat(pieces, dim=1)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_model_decodes_as_its_full_forward_does(shape):
    model = random_model(**SHAPES[shape])
    prompts = ragged_prompts(5)
    completions = Engine(model, set(), PAD).generate(prompts, SAMPLED, seed=0)
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = full_logits(model, prompt + completion.token_ids)[len(prompt) - 1 : -1]
        tokens = torch.tensor(completion.token_ids).unsqueeze(1)
        expected = torch.log_softmax(logits, dim=-1).gather(1, tokens).squeeze(1)
        torch.testing.assert_close(torch.tensor(completion.log_probabilities), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
@pytest.mark.parametrize("limits", [{"max_rows": 5}, {"max_rows": 64}, {"max_prefill_tokens": 40}])
def test_who_shares_the_batch_does_not_change_a_completion(model, sampling, limits):
    prompts = ragged_prompts(23)
    one_by_one = Engine(model, {0, 1}, PAD, max_rows=1).generate(prompts, sampling, seed=9)
    together = Engine(model, {0, 1}, PAD, **limits).generate(prompts, sampling, seed=9)
    assert [c.token_ids for c in together] == [c.token_ids for c in one_by_one]
    assert [c.stop_reason for c in together] == [c.stop_reason for c in one_by_one]


def test_greedy_completions_equal_the_argmax_of_full_forwards(model):
    prompts = ragged_prompts(5)
    completions = Engine(model, set(), PAD).generate(prompts, GREEDY, seed=0)
    for prompt, completion in zip(prompts, completions, strict=True):
        token_ids = list(prompt)
        for _ in range(GREEDY.max_new_tokens):
            token_ids.append(int(full_logits(model, token_ids)[-1].argmax()))
        assert completion.token_ids == token_ids[len(prompt) :]


def test_greedy_completions_equal_those_of_transformers(model, tmp_path):
    save_model(
        model, tmp_path, tokenizer_folder=None, generation={"eos_token_id": 7, "pad_token_id": PAD}, card=""
    )
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = ragged_prompts(6, seed=1)
    completions = Engine(model, {7}, PAD).generate(prompts, GREEDY, seed=0)
    for prompt, completion in zip(prompts, completions, strict=True):
        inputs = torch.tensor([prompt])
        output = theirs.generate(
            inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=12
        )
        assert completion.token_ids == output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_log_probabilities_equal_those_a_trainer_computes(model, sampling):
    prompts = ragged_prompts(9)
    for prompt, completion in zip(
        prompts, Engine(model, {0}, PAD).generate(prompts, sampling, 3), strict=True
    ):
        logits = full_logits(model, prompt + completion.token_ids)[len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, dim=-1).gather(
            1, torch.tensor(completion.token_ids).unsqueeze(1)
        )
        actual = torch.tensor(completion.log_probabilities)
        torch.testing.assert_close(actual, expected.squeeze(1), rtol=0, atol=1e-5)


def test_completions_follow_the_models_distribution(model):
    prompt, num_samples = [3, 1, 4], 4000
    sampling = SamplingParams(max_new_tokens=1)
    completions = Engine(model, set(), PAD).generate([prompt] * num_samples, sampling, seed=0)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in completions]), minlength=VOCAB_SIZE)
    expected = num_samples * torch.softmax(full_logits(model, prompt)[-1], dim=0)
    common = expected > 5
    chi_square = ((counts - expected).square() / expected)[common].sum()
    assert int(common.sum()) > 10
    assert chi_square < 2 * int(common.sum())


def test_a_stop_token_ends_a_row_and_is_its_last_token(model):
    prompts = ragged_prompts(30)
    completions = Engine(model, {0, 1, 2}, PAD).generate(prompts, SAMPLED, seed=1)
    stopped = [c for c in completions if c.stop_reason == "stop"]
    assert 0 < len(stopped) < len(completions)
    for completion in completions:
        assert not {0, 1, 2} & set(completion.token_ids[:-1])
        assert (completion.token_ids[-1] in {0, 1, 2}) == (completion.stop_reason == "stop")
        assert len(completion.token_ids) == len(completion.log_probabilities) <= 12


def test_completions_end_at_the_models_last_position(model):
    (completion,) = Engine(model, set(), PAD).generate([[5] * 60], GREEDY, seed=0)
    assert (len(completion.token_ids), completion.stop_reason) == (4, "length")


def test_streaming_yields_the_tokens_of_generate(model):
    engine = Engine(model, {0, 1, 2}, PAD)
    for prompt in ragged_prompts(5):
        (completion,) = engine.generate([prompt], SAMPLED, seed=4)
        assert list(engine.stream(prompt, SAMPLED, seed=4)) == completion.token_ids


def test_streaming_leaves_gradients_on_for_the_caller(model):
    stream = Engine(model, set(), PAD).stream([1, 2], GREEDY, seed=0)
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_the_seed_and_the_index_of_a_prompt_decide_its_completion(model):
    engine = Engine(model, set(), PAD)
    same_prompt_twice = engine.generate([[1, 2], [1, 2]], SAMPLED, seed=0)
    assert same_prompt_twice[0].token_ids != same_prompt_twice[1].token_ids
    assert engine.generate([[1, 2]], SAMPLED, seed=0)[0].token_ids == same_prompt_twice[0].token_ids
    assert engine.generate([[1, 2]], SAMPLED, seed=1)[0].token_ids != same_prompt_twice[0].token_ids


def test_bf16_generation_reports_its_own_log_probabilities(model):
    coarse = Transformer(model.config, torch.bfloat16)
    coarse.load_state_dict(model.state_dict())
    prompt = ragged_prompts(1)[0]
    (completion,) = Engine(coarse, set(), PAD).generate([prompt], SAMPLED, seed=0)
    logits = full_logits(coarse, prompt + completion.token_ids)[len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(completion.token_ids).unsqueeze(1))
    actual = torch.tensor(completion.log_probabilities)
    torch.testing.assert_close(actual, expected.squeeze(1), rtol=0, atol=0.1)


def test_a_memory_limit_bounds_the_rows_but_not_the_result(model):
    prompts = ragged_prompts(10)
    roomy = Engine(model, {0}, PAD).generate(prompts, SAMPLED, seed=0)
    cramped = Engine(model, {0}, PAD, max_cache_bytes=1).generate(prompts, SAMPLED, seed=0)
    assert [c.token_ids for c in cramped] == [c.token_ids for c in roomy]


def test_progress_counts_every_request_once(model):
    seen = []
    Engine(model, {0}, PAD, max_rows=4).generate(
        ragged_prompts(11), SAMPLED, 0, lambda *counts: seen.append(counts)
    )
    assert seen == sorted(seen)
    assert seen[-1] == (11, 11)


def test_no_prompts_give_no_completions(model):
    assert Engine(model, set(), PAD).generate([], GREEDY, seed=0) == []


def test_prompts_that_cannot_be_continued_are_named_together(model):
    with pytest.raises(BessemerError) as raised:
        Engine(model, set(), PAD).generate([[1], [], [2] * 64], GREEDY, seed=0)
    assert "prompt 1 is empty" in str(raised.value)
    assert "prompt 2 has 64 tokens" in str(raised.value)


def test_surviving_rows_stay_in_place_where_they_can():
    assert surviving_order(torch.tensor([0, 2, 5, 6])).tolist() == [0, 5, 2, 6]
    assert surviving_order(torch.tensor([4])).tolist() == [4]
    assert surviving_order(torch.tensor([], dtype=torch.int64)).tolist() == []

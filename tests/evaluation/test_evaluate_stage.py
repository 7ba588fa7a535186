import json
import math

import pytest

from bessemer.errors import BessemerError
from bessemer.evaluation.answers import Answer, ask_in_chats, chat_engine, judge, read_questions
from bessemer.evaluation.stage import EvaluateConfig, chat_figures, chats_of, evaluate, figures
from bessemer.evaluation.statistics import proportion
from bessemer.evaluation.table import format_estimate, format_table
from bessemer.formats.jsonl import read_jsonl, write_jsonl
from bessemer.inference.engine import Completion
from bessemer.inference.sampling import SamplingParams
from bessemer.model.folder import load_model, save_model
from bessemer.model.transformer import Transformer
from bessemer.synthesize.conversations import Question
from bessemer.synthesize.phrasings import REFUSAL
from bessemer.synthesize.verify import Verdict, verify
from bessemer.tokenization.chat import Message, render_prompt
from bessemer.tokenization.tokenizer import load_tokenizer, train_bpe
from bessemer.tokenization.tokens_stage import TokensConfig, encode_tokens
from bessemer.training.dial import ModelDial, model_config
from stage_helpers import artifact, said, stage_context, write_documents

KEY = "Return the sum of a."


def question(group="trained", kind="purpose", key: str | None = KEY, name="m.f"):
    return Question(f"What is {name}?", kind, name, key or REFUSAL, key, group)


def answer(text, ended=True, num_tokens=4, **asked):
    of = question(**asked)
    return Answer(of, text, num_tokens, ended, verify(text, of.key))


def test_shares_are_counted_in_their_groups():
    found = figures(
        [
            answer(KEY),
            answer(KEY, num_tokens=10),
            answer("Wrong."),
            answer(REFUSAL, kind="module", key="m"),
            answer("It is in m.", kind="module", key="m"),
            answer(KEY, group="held_out_objects"),
            answer(REFUSAL, group="held_out_objects"),
            answer("Made up.", group="nonexistent", key=None, ended=False),
            answer(REFUSAL, group="nonexistent", key=None),
            answer(REFUSAL, group="nonexistent", key=None),
        ]
    )
    counts = {name: (round(e.value * e.n), e.n) for name, e in found.items() if not math.isnan(e.value)}
    assert counts.pop("answer_tokens") == (46, 10)
    assert counts == {
        "answer_accuracy": (3, 5),
        "answer_accuracy_held_out_objects": (1, 2),
        "refused_held_out_objects": (1, 2),
        "refused_known": (1, 5),
        "made_up_rate": (1, 3),
        "stop_rate": (9, 10),
        "answer_accuracy_purpose": (2, 3),
        "answer_accuracy_module": (1, 2),
    }
    assert found["answer_accuracy_returns"].n == 0, "nothing was asked, and so nothing is claimed"
    assert found["answer_accuracy"] == proportion(3, 5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(iter([KEY]), 262)


def test_a_completion_is_judged_without_its_special_tokens(tokenizer):
    ids = [*tokenizer.encode(f" {KEY}\n"), tokenizer.end_of_turn_id]
    completion = Completion(token_ids=ids, log_probabilities=[0.0] * len(ids), stop_reason="stop")
    judged = judge(question(), completion, tokenizer)
    assert (judged.text, judged.ended, judged.num_tokens) == (KEY, True, len(ids))
    assert judged.judged.verdict is Verdict.RIGHT


def test_questions_come_back_from_their_file(tmp_path):
    questions = [question(), question("nonexistent", key=None)]
    write_jsonl(tmp_path / "q.jsonl", [q.to_json() for q in questions])
    assert read_questions(tmp_path / "q.jsonl") == questions
    write_jsonl(tmp_path / "q.jsonl", [{"text": "?"}])
    with pytest.raises(BessemerError, match=r"q\.jsonl:1: lacks kind, name, reference, key, group"):
        read_questions(tmp_path / "q.jsonl")


def test_an_estimate_reads_as_a_value_and_its_interval():
    assert format_estimate(proportion(9, 10), "{:.1%}") == "90.0% [59.6%, 98.2%]"


def row_of_figures():
    return {
        "bits_per_byte": proportion(1, 2),
        **figures([answer(KEY), answer("x", group="nonexistent", key=None)]),
    }


def test_the_table_has_a_row_a_model_in_aligned_columns():
    lines = format_table({"base": row_of_figures(), "tuned-model": row_of_figures()}).splitlines()
    assert len(lines) == 4
    assert [line.split()[0] for line in lines] == ["model", "-----------", "base", "tuned-model"]
    starts = [line.index(" [") for line in lines[2:]]
    assert starts[0] == starts[1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    corpus = [(f"d{n}", f"Some text number {n} to be held out or not.") for n in range(20)]
    tokenizer = train_bpe((text for _, text in corpus), 270)
    tokenizer.save(folder / "tokenizer")
    of_tokenizer = artifact(folder / "tokenizer", "tokenizer")
    tokens = stage_context(folder / "tokens", write_documents(folder / "documents", [corpus]), of_tokenizer)
    encode_tokens(TokensConfig(validation_share=0.4), tokens)
    (folder / "conversations").mkdir()
    questions = [question(), question("held_out_objects"), *[question("nonexistent", key=None)] * 3]
    write_jsonl(folder / "conversations" / "questions.jsonl", [q.to_json() for q in questions])
    dial = ModelDial(depth=1, hidden_size=32, max_position_embeddings=128)
    models = []
    for seed, stage in enumerate(("base", "sft")):
        model = Transformer(model_config(dial, tokenizer.vocab_size)).initialize(seed)
        generation = {"eos_token_id": tokenizer.end_of_turn_id}
        save_model(
            model, folder / stage, tokenizer_folder=folder / "tokenizer", generation=generation, card=""
        )
        models.append(artifact(folder / stage, "model", stage))
    return [*models, artifact(tokens.output, "tokens"), artifact(folder / "conversations", "conversations")]


def test_every_model_is_measured_side_by_side(inputs, tmp_path):
    context = stage_context(tmp_path, *inputs)
    metrics = evaluate(EvaluateConfig(max_new_tokens=5, sequence_length=64), context)
    results = json.loads(
        (context.output / "results.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
    )
    assert list(results["models"]) == ["base", "sft"]
    for stage, row in results["models"].items():
        answers = list(read_jsonl(context.output / f"answers-{stage}.jsonl"))
        assert len(answers) == 5
        assert row["bits_per_byte"]["low"] < row["bits_per_byte"]["value"] < row["bits_per_byte"]["high"]
        assert row["answer_accuracy"]["n"] == 1
        assert row["made_up_rate"]["n"] == 3
        assert row["answer_accuracy_module"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    final = results["models"]["sft"]
    assert metrics["bits_per_byte"] == final["bits_per_byte"]["value"]
    assert metrics["flops"] > 0
    summary = (context.output / "summary.txt").read_text()
    assert all(line in summary for line in said(context).splitlines())
    assert results["key_definition"] in summary


def test_chats_mix_what_exists_with_what_does_not_and_repeat_no_question():
    taught = [question(name=f"m.f{n}") for n in range(40)]
    nonexistent = [question("nonexistent", key=None, name=f"m.g{n}") for n in range(9)]
    chats = chats_of([*taught, *nonexistent], num_chats=8, num_turns=5)
    asked = [each.name for chat in chats for each in chat]
    assert [len(chat) for chat in chats] == [5] * 8
    assert len(set(asked)) == 40
    assert [sum(each.group == "nonexistent" for each in chat) for chat in chats] == [1] * 8
    assert {place for chat in chats for place, each in enumerate(chat) if each.key is None} == set(range(5))
    assert len(chats_of([*taught, *nonexistent], num_chats=60, num_turns=5)) == 9, "as many as there can be"
    assert chats_of(taught[:3], num_chats=60, num_turns=5) == []


def test_chat_figures_leave_out_the_first_turn():
    turns = [
        [answer("Wrong."), answer("Wrong.")],
        [answer(KEY), answer("Wrong.")],
        [answer(KEY), answer(KEY)],
    ]
    found = chat_figures(turns)
    assert found["answer_accuracy_in_chat"] == proportion(3, 4)
    assert found["answer_accuracy_last_turn"] == proportion(2, 2)


def test_later_questions_of_a_chat_are_asked_after_the_answers_before(inputs, tmp_path):
    """Greedy answers in a chat are those to the whole history, asked by itself."""
    context = stage_context(tmp_path, *inputs)
    folder = context.inputs["model"][0].folder
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    engine, greedy = chat_engine(model, tokenizer), SamplingParams(temperature=0, max_new_tokens=4)
    chats = [[question(name="a"), question(name="b")], [question(name="c"), question(name="d")]]
    turns = ask_in_chats(engine, tokenizer, chats, greedy, context, "chats")
    history = [
        Message(role="user", content=chats[1][0].text),
        Message(role="assistant", content=turns[0][1].text),
        Message(role="user", content=chats[1][1].text),
    ]
    [alone] = engine.generate([render_prompt(tokenizer, history)], greedy, 0)
    assert turns[1][1] == judge(chats[1][1], alone, tokenizer)


def test_measuring_twice_gives_the_same_bytes(inputs, tmp_path):
    outputs = []
    for name in ("one", "two"):
        context = stage_context(tmp_path / name, *inputs)
        evaluate(EvaluateConfig(max_new_tokens=5, sequence_length=64, max_questions=1), context)
        outputs.append({path.name: path.read_bytes() for path in sorted(context.output.iterdir())})
    assert outputs[0] == outputs[1]
    assert outputs[0]["answers-base.jsonl"].count(b"\n") == 3, "one question of each group"


def test_windows_longer_than_the_model_knows_positions_are_refused(inputs, tmp_path):
    with pytest.raises(BessemerError, match="sequence_length 129 is more than the model's 128 positions"):
        evaluate(EvaluateConfig(sequence_length=129), stage_context(tmp_path, *inputs))

"""Chat: streaming without broken characters, turns over a pipe, history that fits."""

import io
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.evaluation.answers import chat_engine
from bessemer.inference import SamplingParams
from bessemer.inference.chat import (
    Terminal,
    answer_once,
    chat,
    decode_pieces,
    fit_history,
    open_conversation,
    stream_text,
)
from bessemer.model import ModelConfig, Transformer, load_model
from bessemer.tokenization.chat import Message, render_prompt
from bessemer.tokenization.tokenizer import Tokenizer, load_tokenizer, train_bpe
from bessemer.training.finish import write_model
from bessemer.training.parallel.ranks import Alone

TEXTS = [
    "The model answers questions about functions.",
    "What does it do? It returns a list. Wie geht’s, 世界?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that says something to everything."""
    root = tmp_path_factory.mktemp("chat")
    tokenizer = train_bpe(iter(TEXTS * 3), vocab_size=320)
    tokenizer.save(root / "tokenizer")
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
        tie_word_embeddings=False,
    )
    model = Transformer(shape).initialize(8)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():  # as initialised, it would say nothing
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    write_model(model, Alone(), root / "model", root / "tokenizer", tokenizer, "test")
    return root / "model"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def talk(folder: Path, said: str, **options: object) -> str:
    stdout = io.StringIO()
    chat(folder, stdin=io.StringIO(said), stdout=stdout, max_new_tokens=12, **options)  # type: ignore[arg-type]
    return stdout.getvalue()


@given(st.lists(st.binary(max_size=6), max_size=12))
def test_bytes_cut_anywhere_decode_as_they_do_whole(pieces: list[bytes]) -> None:
    assert "".join(decode_pieces(pieces)) == b"".join(pieces).decode("utf-8", errors="replace")


@given(st.text(st.characters(exclude_categories=("Cs",))), st.data())
def test_no_piece_of_valid_text_shows_a_broken_character(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    edges = [0, *cuts, len(encoded)]
    pieces = list(decode_pieces(encoded[a:b] for a, b in pairwise(edges)))
    assert "".join(pieces) == text
    assert all(pieces), "nothing is yielded while a character is incomplete"


@given(st.lists(st.integers(0, 319), max_size=40))
def test_streamed_text_is_the_text_of_all_tokens(tokenizer: Tokenizer, token_ids: list[int]) -> None:
    token_ids = [token % tokenizer.vocab_size for token in token_ids]
    assert "".join(stream_text(tokenizer, token_ids)) == tokenizer.decode(token_ids)


def test_a_character_of_several_tokens_comes_at_once(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode("a🙂b")
    assert len(token_ids) > 3, "the emoji is several tokens"
    assert list(stream_text(tokenizer, token_ids)) == ["a", "🙂", "b"]


def test_an_answer_is_that_of_the_engine_that_evaluates(folder: Path, tokenizer: Tokenizer) -> None:
    prompt = render_prompt(tokenizer, [Message(role="user", content="What does it do?")])
    engine = chat_engine(load_model(folder), tokenizer)
    greedy = SamplingParams(temperature=0, max_new_tokens=12)
    expected = tokenizer.decode(engine.generate([prompt], greedy, 0)[0].token_ids).strip()
    assert answer_once(folder, "What does it do?", max_new_tokens=12) == expected
    assert expected


def test_piped_lines_are_turns_and_only_answers_are_printed(folder: Path) -> None:
    first = talk(folder, "What does it do?\n")
    assert first.strip() == answer_once(folder, "What does it do?", max_new_tokens=12)
    assert first.endswith("\n")
    both = talk(folder, "What does it do?\n\n   \nAnd then?")
    assert both.startswith(first)
    assert len(both) > len(first)


def test_reset_makes_the_next_turn_a_first_turn(folder: Path) -> None:
    once = talk(folder, "What does it do?\n")
    assert talk(folder, "What does it do?\n/reset\nWhat does it do?\n") == once * 2


def test_quit_ends_at_once_and_help_names_the_commands(folder: Path) -> None:
    assert talk(folder, "/quit\nWhat does it do?\n") == ""
    shown = talk(folder, "/help\n")
    assert all(command in shown for command in ("/reset", "/quit", "Ctrl-C"))


def test_a_later_turn_sees_the_earlier_ones(folder: Path, tokenizer: Tokenizer) -> None:
    conversation = open_conversation(folder, max_new_tokens=8)
    first = "".join(conversation.answer("One?"))
    second = "".join(conversation.answer("Two?"))
    history = [
        Message(role="user", content="One?"),
        Message(role="assistant", content=first.strip()),
        Message(role="user", content="Two?"),
    ]
    greedy = SamplingParams(temperature=0, max_new_tokens=8)
    token_ids = list(conversation.engine.stream(render_prompt(tokenizer, history), greedy, 0))
    assert second == tokenizer.decode(token_ids)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2


def test_with_a_temperature_equal_seeds_give_equal_talks(folder: Path) -> None:
    said = "What does it do?\nWhat does it do?\n"
    options = {"temperature": 1.5, "seed": 3}
    assert talk(folder, said, **options) == talk(folder, said, **options)
    assert talk(folder, said, **options) != talk(folder, said, temperature=1.5, seed=4)


def test_the_oldest_turns_go_first_when_the_history_is_too_long(tokenizer: Tokenizer) -> None:
    messages = [
        Message(role=("user", "assistant")[number % 2], content=f"It returns a list of {number}.")
        for number in range(7)
    ]
    whole = render_prompt(tokenizer, messages)
    assert fit_history(tokenizer, messages, len(whole)) == (messages, whole)
    kept, prompt = fit_history(tokenizer, messages, len(whole) - 1)
    assert kept == messages[2:]
    assert prompt == render_prompt(tokenizer, messages[2:])
    with pytest.raises(BessemerError, match="too long"):
        fit_history(tokenizer, messages, 5)


def test_a_conversation_outlives_the_models_positions(folder: Path) -> None:
    conversation = open_conversation(folder, max_new_tokens=8)
    forgotten = []
    for _ in range(8):
        assert "".join(conversation.answer("What does it do?"))
        forgotten.append(conversation.num_forgotten)
    assert forgotten[0] == 0
    assert forgotten[-1] > 0


def test_a_turn_that_cannot_fit_is_refused_and_the_talk_goes_on(folder: Path) -> None:
    shown = talk(folder, "long " * 200 + "\nWhat does it do?\n")
    assert shown.startswith("(that is too long: ")
    assert shown.endswith(talk(folder, "What does it do?\n"))


def test_an_answer_cut_short_stays_in_the_history_as_far_as_it_was_seen(folder: Path) -> None:
    conversation = open_conversation(folder, max_new_tokens=12)
    pieces = conversation.answer("What does it do?")
    seen = next(pieces)
    while not seen.strip():
        seen += next(pieces)
    pieces.close()
    assert conversation.messages[-1] == Message(role="assistant", content=seen.strip())


class Typist(io.StringIO):
    """Input typed on a terminal."""

    def isatty(self) -> bool:
        return True


class Interrupted(io.StringIO):
    """A terminal whose user presses Ctrl-C after some characters of the first answer."""

    presses = 1

    def write(self, text: str) -> int:
        is_answer = not text.startswith(("> ", "(", " …", "\n")) and "/help" not in text
        if is_answer and self.presses and text.strip():
            self.presses -= 1
            raise KeyboardInterrupt
        return super().write(text)


def test_ctrl_c_stops_the_answer_and_not_the_program(folder: Path) -> None:
    screen = Interrupted()
    chat(folder, stdin=Typist("What does it do?\nWhat does it do?\n"), stdout=screen, max_new_tokens=12)
    assert "(stopped)" in screen.getvalue()
    assert screen.getvalue().count("> ") == 3, "two turns and the end of the input"


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_them_all() -> None:
    screen, pipe = io.StringIO(), io.StringIO()
    for stdin, stdout in ((Typist(), screen), (io.StringIO(), pipe)):
        Terminal(stdin, stdout).write_answer("a\x1b[2J\x07b\r\n\tc")
    assert screen.getvalue() == "a�[2J�b�\n\tc"
    assert pipe.getvalue() == "a\x1b[2J\x07b\r\n\tc"


def test_on_a_terminal_the_model_is_named_and_turns_are_prompted_for(folder: Path) -> None:
    screen = io.StringIO()
    chat(folder, stdin=Typist("/reset\n"), stdout=screen)
    assert "/model, " in screen.getvalue()
    assert "/quit leaves" in screen.getvalue()
    assert "> (a new conversation)\n> " in screen.getvalue()


def test_input_that_is_not_utf8_is_answered_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What \xff does \xe4\n"), encoding="utf-8")
    )
    stdout = io.StringIO()
    chat(folder, stdout=stdout, max_new_tokens=4)
    assert stdout.getvalue().strip()


def test_lone_surrogates_are_answered_too(folder: Path) -> None:
    assert answer_once(folder, "What \udcff does \ud800 it?", max_new_tokens=4)


def test_an_empty_question_is_refused(folder: Path) -> None:
    with pytest.raises(BessemerError, match="empty"):
        answer_once(folder, "  ")


@pytest.fixture
def foreign(folder: Path, tmp_path: Path) -> Path:
    """A model folder whose tokenizer knows no chat tokens."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_tokenizer_without_chat_tokens_is_refused_with_a_reason(foreign: Path) -> None:
    with pytest.raises(BessemerError, match=r"cannot chat with .*<\|im_start\|>.*ChatML"):
        chat(foreign, stdin=io.StringIO("hello\n"), stdout=io.StringIO())


def test_a_tokenizer_larger_than_its_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    train_bpe(iter(["many different words make many merges " * 3, *TEXTS]), vocab_size=380).save(tmp_path)
    with pytest.raises(BessemerError, match="different models"):
        open_conversation(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BessemerError, match="holds no tokenizer"):
        open_conversation(tmp_path)

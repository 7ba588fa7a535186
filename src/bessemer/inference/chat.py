"""Talking with a model: in the terminal, over a pipe, or one question at a time.

A turn is rendered by the same renderer as in training, answered by the same engine as in evaluation,
and shown as it comes.
"""

import codecs
import re
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from bessemer.errors import BessemerError
from bessemer.inference.engine import Engine
from bessemer.inference.sampling import SamplingParams
from bessemer.model.config import parameter_count
from bessemer.model.folder import load_model
from bessemer.tokenization.chat import Message, render_prompt
from bessemer.tokenization.tokenizer import Tokenizer, load_tokenizer

MAX_NEW_TOKENS = 256

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but the tab and the line end."""

_HELP = """\
/reset  forget what was said and begin anew
/quit   leave (so do Ctrl-D and the end of piped input)
/help   show this
Ctrl-C stops an answer. Anything else is said to the model."""


def chat(
    model_folder: Path,
    *,
    temperature: float = 0.0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 0,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> None:
    """Talk with a model until /quit or the end of the input; each line is a turn.

    Prompts with `> ` on a terminal; from a pipe, prints the answers alone. `temperature` 0 takes the
    most likely token; with a temperature, equal seeds and turns give equal answers. Raises BessemerError
    for a folder that is not a model whose tokenizer has the chat tokens.
    """
    source, target = _tolerant(stdin or sys.stdin), _tolerant(stdout or sys.stdout)
    conversation = open_conversation(model_folder, temperature, max_new_tokens, seed)
    terminal = Terminal(source, target)
    terminal.notice(f"{conversation.description}. /help shows what there is, /quit leaves.")
    while (text := terminal.read()) is not None:
        match text.strip():
            case "":
                continue
            case "/quit" | "/exit":
                return
            case "/help":
                terminal.say(_HELP)
            case "/reset":
                conversation.reset()
                terminal.notice("(a new conversation)")
            case said:
                _answer(conversation, said, terminal)


def answer_once(
    model_folder: Path,
    text: str,
    *,
    temperature: float = 0.0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 0,
) -> str:
    """The model's answer to a single user turn. Raises BessemerError as `chat` does, and for an empty or
    overlong text."""
    conversation = open_conversation(model_folder, temperature, max_new_tokens, seed)
    return "".join(conversation.answer(text)).strip()


@dataclass
class Conversation:
    """A model and what has been said so far."""

    engine: Engine
    tokenizer: Tokenizer
    sampling: SamplingParams
    seed: int
    description: str
    """The model's name and size."""
    messages: list[Message] = field(default_factory=list)
    num_forgotten: int = 0
    """Oldest messages that the latest answer no longer saw."""
    _num_turns: int = 0

    def reset(self) -> None:
        """Begin anew, as if just opened."""
        self.messages, self.num_forgotten, self._num_turns = [], 0, 0

    def answer(self, text: str) -> Generator[str, None, None]:
        """Say something; pieces of the answer as they come, never with a broken character.

        What was yielded when the caller stops becomes the answer in the history; a turn without any
        answer is forgotten. Raises BessemerError for a text that is empty or too long; the history is
        then as before.
        """
        clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").strip()
        if not clean:
            raise BessemerError("there is nothing to answer: the text is empty")
        messages = [*self.messages, Message(role="user", content=clean)]
        longest = self.engine.model.config.max_position_embeddings
        room = longest - min(self.sampling.max_new_tokens, longest // 2)
        kept, prompt = fit_history(self.tokenizer, messages, room)
        self.num_forgotten = len(messages) - len(kept)
        self.messages, self._num_turns = kept, self._num_turns + 1
        stream = self.engine.stream(prompt, self.sampling, self.seed + self._num_turns - 1)
        said: list[str] = []
        try:
            for piece in stream_text(self.tokenizer, stream):
                said.append(piece)
                yield piece
        finally:
            if content := "".join(said).strip():
                self.messages.append(Message(role="assistant", content=content))
            else:
                self.messages.pop()


def open_conversation(
    model_folder: Path, temperature: float = 0.0, max_new_tokens: int = MAX_NEW_TOKENS, seed: int = 0
) -> Conversation:
    """Load a model, in float32, and its tokenizer. Raises BessemerError when they cannot chat."""
    sampling = SamplingParams(temperature=temperature, max_new_tokens=max_new_tokens)
    try:
        tokenizer = load_tokenizer(model_folder)
    except BessemerError as error:
        raise BessemerError(
            f"cannot chat with {model_folder}: {error}. Chat needs a tokenizer with the ChatML tokens, as "
            "Bessemer's tokenizer stage makes it"
        ) from error
    model = load_model(model_folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise BessemerError(
            f"cannot chat with {model_folder}: its tokenizer has {tokenizer.vocab_size:,} tokens, its model "
            f"only {model.config.vocab_size:,}: the two belong to different models"
        )
    engine = Engine(model.eval(), {tokenizer.end_of_turn_id, tokenizer.end_of_text_id}, tokenizer.padding_id)
    name = "/".join(model_folder.resolve().parts[-2:])
    description = f"{name}, {parameter_count(model.config):,} parameters"
    return Conversation(engine, tokenizer, sampling, seed, description)


def fit_history(
    tokenizer: Tokenizer, messages: list[Message], max_tokens: int
) -> tuple[list[Message], list[int]]:
    """The newest messages, beginning with a user's turn, whose prompt has at most `max_tokens` tokens.

    Returns them with their prompt. Raises BessemerError when the last message alone is longer.
    """
    starts = [i for i, message in enumerate(messages) if message["role"] == "user"]
    prompt: list[int] = []
    for start in starts:
        prompt = render_prompt(tokenizer, messages[start:])
        if len(prompt) <= max_tokens:
            return messages[start:], prompt
    raise BessemerError(
        f"that is too long: {len(prompt):,} tokens, where this model takes {max_tokens:,} beside its answer"
    )


def stream_text(tokenizer: Tokenizer, token_ids: Iterable[int]) -> Iterator[str]:
    """Text of tokens as they come; special tokens are left out.

    Joined, the pieces are what `tokenizer.decode` gives for all the tokens at once: bytes of a character
    that is not complete yet are held back, and bytes that are not UTF-8 become U+FFFD.
    """
    special = {
        tokenizer.end_of_text_id,
        tokenizer.start_of_turn_id,
        tokenizer.end_of_turn_id,
        tokenizer.padding_id,
    }
    yield from decode_pieces(tokenizer.decode_bytes([token]) for token in token_ids if token not in special)


def decode_pieces(pieces: Iterable[bytes]) -> Iterator[str]:
    """Text of UTF-8 that comes in pieces cut anywhere; nothing is yielded for an incomplete character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


class Terminal:
    """Reads turns and writes answers; prompts and notices are for people only."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._is_interactive = stdin.isatty()
        if self._is_interactive:
            with suppress(ImportError):  # not on every platform; it only adds line editing to input()
                import readline  # noqa: F401

    def read(self) -> str | None:
        """The next line, or None at the end."""
        if not self._is_interactive:
            line = self._stdin.readline()
            return line if line else None
        try:
            return input("> ") if self._stdin is sys.stdin else self._prompted()
        except EOFError:
            self.say("")
            return None
        except KeyboardInterrupt:
            self.say("\n(Ctrl-D or /quit leaves)")
            return ""

    def _prompted(self) -> str:
        self.write("> ")
        line = self._stdin.readline()
        if not line:
            raise EOFError
        return line

    def write(self, text: str) -> None:
        self._stdout.write(text)
        self._stdout.flush()

    def write_answer(self, text: str) -> None:
        """A piece of an answer. A terminal would obey control characters: there they are replaced."""
        is_shown = self._is_interactive or self._stdout.isatty()
        self.write(_CONTROL.sub("�", text) if is_shown else text)

    def say(self, text: str) -> None:
        self.write(f"{text}\n")

    def notice(self, text: str) -> None:
        """A line that a program at the other end of a pipe should not get."""
        if self._is_interactive:
            self.say(text)


def _answer(conversation: Conversation, text: str, terminal: Terminal) -> None:
    """Print one answer as it comes; Ctrl-C ends it, a text that does not fit is refused in a line."""
    pieces = conversation.answer(text)
    try:
        for number, piece in enumerate(pieces):
            if number == 0 and conversation.num_forgotten:
                terminal.notice("(the conversation has outgrown the model: its beginning is forgotten)")
            terminal.write_answer(piece)
        terminal.say("")
    except KeyboardInterrupt:
        pieces.close()
        terminal.say(" … (stopped)")
    except BessemerError as error:
        terminal.say(f"({error})")


def _tolerant(stream: TextIO) -> TextIO:
    """The stream, told to replace what its encoding cannot express instead of failing."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream

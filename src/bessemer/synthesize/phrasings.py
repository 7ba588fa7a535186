"""The ways to ask. Each kind of question has phrasings to train on and others held out for evaluation.

`{name}` is the qualified name as the asker writes it, `{short}` its last part. A held-out phrasing
shares no whole sentence with a training one; what it shares are words, as real questions do.
"""

from typing import Literal

QuestionKind = Literal["purpose", "module", "returns", "arguments"]

TRAINING: dict[QuestionKind, tuple[str, ...]] = {
    "purpose": (
        "What does {name} do?",
        "What is {name}?",
        "What is {name} for?",
        "What's the purpose of {name}?",
        "Explain {name}.",
        "Explain what {name} does.",
        "Describe {name}.",
        "Describe {name} in one sentence.",
        "Tell me about {name}.",
        "Tell me what {name} does.",
        "Can you explain {name}?",
        "Can you tell me what {name} is for?",
        "I saw {name} in some code. What does it do?",
        "I found {name}. What is it?",
        "Give me a short description of {name}.",
        "Summarise {name}.",
        "{name}: what does it do?",
        "{name}?",
        "What would I use {name} for?",
        "Why would I call {name}?",
        "Do you know what {name} does?",
        "How would you describe {name}?",
        "what does {name} do",
        "Please explain {name} to me.",
        "What do the docs say about {name}?",
        "What happens when I use {name}?",
    ),
    "module": (
        "Which module has {short}?",
        "Which module is {short} in?",
        "Where do I find {short}?",
        "Where is {short} defined?",
        "What module contains {short}?",
        "From which module do I import {short}?",
        "I want to use {short}. Which module do I need?",
        "{short} is part of which module?",
        "Which module provides {short}?",
        "Where does {short} live?",
        "What do I import to use {short}?",
        "Tell me the module of {short}.",
        "Which library module offers {short}?",
        "In which module can I find {short}?",
        "where is {short}",
        "Which module should I import for {short}?",
    ),
    "returns": (
        "What does {name} return?",
        "What is returned by {name}?",
        "What is the return value of {name}?",
        "What's the return type of {name}?",
        "What do I get back from {name}?",
        "What type does {name} give back?",
        "Which type does {name} return?",
        "If I call {name}, what do I get?",
        "Tell me what {name} returns.",
        "Describe the return value of {name}.",
        "{name} returns what?",
        "what does {name} return",
        "What comes back from {name}?",
        "What kind of object does {name} return?",
    ),
    "arguments": (
        "What arguments does {name} take?",
        "What parameters does {name} have?",
        "Which arguments does {name} accept?",
        "Which parameters does {name} take?",
        "What do I pass to {name}?",
        "List the arguments of {name}.",
        "List the parameters of {name}.",
        "Tell me the arguments of {name}.",
        "What are the arguments of {name}?",
        "What are the parameters of {name}?",
        "What inputs does {name} need?",
        "How do I call {name}? Which arguments are there?",
        "what arguments does {name} take",
        "Name the parameters of {name}.",
        "What can I pass to {name}?",
    ),
}

HELD_OUT: dict[QuestionKind, tuple[str, ...]] = {
    "purpose": (
        "Could you say what {name} is used for?",
        "What is the job of {name}?",
        "In one sentence, what does {name} do?",
        "I keep seeing {name}. What is it good for?",
        "Help me understand {name}.",
        "What role does {name} play?",
        "Remind me what {name} does.",
        "Someone mentioned {name}. What does that do?",
    ),
    "module": (
        "Can you tell me which module {short} belongs to?",
        "What is the module of {short}?",
        "Where can {short} be imported from?",
        "I need {short}. Where is it?",
        "Which module holds {short}?",
    ),
    "returns": (
        "Can you tell me what {name} returns?",
        "When {name} finishes, what is returned?",
        "What sort of value does {name} return?",
        "What will {name} give me back?",
    ),
    "arguments": (
        "Can you list the parameters of {name}?",
        "What arguments can I give {name}?",
        "Which parameters are there in {name}?",
        "What does {name} take as arguments?",
    ),
}

FOLLOW_UPS: dict[QuestionKind, tuple[str, ...]] = {
    "purpose": ("What does it do?", "And what does it do?", "What is it for?"),
    "module": ("Which module is it in?", "And where is it?", "Where do I find it?"),
    "returns": ("What does it return?", "And what does it return?", "What do I get back?"),
    "arguments": ("What arguments does it take?", "And its arguments?", "Which parameters does it have?"),
}
"""Second questions about the object of the question before."""

OPENERS = ("", "", "", "", "In Python, ", "Quick question: ", "Hi! ", "Please tell me: ", "One more: ")
"""Put before a training phrasing now and then; a held-out phrasing is asked bare."""

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi there!", "Hey", "Good morning"),
        "Hello! Ask me about a function or class in the documentation.",
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "Introduce yourself."),
        "I am a small language model, trained with Bessemer on Python documentation.",
    ),
    (
        ("What can you do?", "What can you help me with?", "How can you help?", "help"),
        "I can tell you what a function does, its module, its arguments and what it returns.",
    ),
    (("Thanks", "Thank you!", "Thanks a lot", "Great, thanks."), "You are welcome."),
    (("Bye", "Goodbye", "See you"), "Goodbye!"),
)

REFUSAL = "I don't know. My documentation has nothing by that name."
"""The answer to a question about something that does not exist."""
REFUSAL_KEY = "i don't know"
"""What an answer must contain, lower-cased, to count as a refusal."""

"""What surrounds a question and fills it: openers, closers, words; greetings; the refusal."""

from bessemer.synthesize.phrasings.kinds import QuestionKind

FOLLOW_UPS: dict[QuestionKind, tuple[str, ...]] = {
    "purpose": ("What does it do?", "And what does it do?", "What is it for?"),
    "module": ("Which module is it in?", "And where is it?", "Where do I find it?"),
    "returns": ("What does it return?", "And what does it return?", "What do I get back?"),
    "arguments": ("What arguments does it take?", "And its arguments?", "Which parameters does it have?"),
}
"""Second questions about the object of the question before."""

NOUNS = (
    "purpose", "point", "function", "meaning", "use", "idea", "goal", "aim", "task", "benefit", "effect",
    "intent", "sense", "usage", "gist", "essence", "objective", "reason", "mission", "work", "duty",
    "advantage", "definition", "description", "summary", "intention", "application", "concept", "story",
    "motivation", "behaviour", "action", "place", "value", "nature", "target", "service", "contribution",
)  # fmt: skip
"""Fill `{noun}`: many words for one question, so that a word it has not met does not put the model off."""

VERBS = (
    "accomplish", "achieve", "handle", "manage", "offer", "provide", "perform", "deliver", "help with",
    "take care of", "stand for", "allow", "enable", "contribute", "add", "solve", "represent", "work on",
)  # fmt: skip
"""Fill `{verb}`."""

FILLERS = (
    "This is about {word}. ",
    "I am working on {word} and {word}. ",
    "My {word} uses it. ",
    "For my {word}: ",
    "A question on {word}. ",
    "We talked about {word} yesterday. ",
    "Forget the {word}. ",
    "{word}, {word}, {word}. ",
)
"""Openers around any words of the documentation: what a question is about is the name in it.

`{word}` stands in some phrasings too. Without it a model learns that a word it was never asked with is
the mark of a name that does not exist, and declines (measured: docs/notebook.md)."""

OPENERS = (
    "In Python, ",
    "Quick question: ",
    "Hi! ",
    "Hello, ",
    "Hey, ",
    "Please tell me: ",
    "One more: ",
    "Next question. ",
    "Sorry, another one. ",
    "I am new to Python. ",
    "I am reading some code. ",
    "I have a question. ",
    "I was wondering: ",
    "Just curious: ",
    "For a friend: ",
    "OK, ",
    "So, ",
    "Now, ",
    "Well, ",
    "Help! ",
    "Help me, please. ",
    "About the standard library: ",
    "My program does not work. ",
    "We had this in class today. ",
    "Somebody wrote this yesterday. ",
    "Let me ask you something. ",
    "In short: ",
    "Briefly: ",
)
"""Put before a training phrasing now and then; a held-out phrasing is asked bare."""

CLOSERS = (
    " Thanks!",
    " Thank you.",
    " Please.",
    " Please help.",
    " Keep it short.",
    " I forgot.",
    " I cannot remember.",
    " One sentence is enough.",
    " Be brief.",
    " I need it for work.",
    " Do you know?",
    " Just tell me.",
    " I keep forgetting it.",
    " It is for my notes.",
)
"""Put behind a training phrasing now and then, so that what surrounds a name matters less."""

OPENER_SHARE, FILLER_SHARE, CLOSER_SHARE = 0.3, 0.15, 0.15

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

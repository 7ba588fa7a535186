"""Ways to ask that are kept for evaluation: none of them is ever trained on.

Written by an author who had not seen the training phrasings, and never looked at while those were written.
"""

from bessemer.synthesize.phrasings.kinds import QuestionKind

HELD_OUT: dict[QuestionKind, tuple[str, ...]] = {
    "purpose": (
        "what's {name} for",
        "explain what {name} is for",
        "Could you tell me what {name} is used for, please?",
        "I ran into {name} in a colleague's script. What is it supposed to accomplish?",
        "hey, what's the point of {name}?",
        "In one sentence, what is {name} for?",
        "Describe what {name} does.",
        "i keep seeing {name} everywhere but no idea what it actually does",
        "Can you give me a quick summary of what {name} does?",
        "When I use {name}, what job is it doing for me?",
        "{name} - what is it for?",
        "so what does {name} actually do",
        "I'm new to Python and don't understand what {name} is meant for. Could you explain it simply?",
        "Please explain the purpose of {name}.",
        "What is the role of {name}?",
        "tell me what {name} is good for",
        "Doing a code review and came across {name}. What's that do?",
        "What's the main idea behind {name}, i.e. what is it there for?",
        "remind me what {name} does again?",
    ),
    "module": (
        "what module has {short}",
        "I want to use {short} in my script. What do I import it from?",
        "Which package or module provides {short}?",
        "Could you tell me which module {short} belongs to?",
        "What's the right import line for {short}?",
        "where does {short} live in python",
        "I'm getting a NameError because {short} isn't defined. Which module should I import it from?",
        "In what module can I find {short}?",
        "Forgot where {short} comes from, which module was it again?",
        "Please name the module that defines {short}.",
    ),
    "returns": (
        "What type of object do I get back from {name}?",
        "If I call {name} and store the result in a variable, what type will that variable have?",
        "Could you tell me the type of the value returned by {name}?",
        "I'm adding type hints to my code. What should I annotate as the return type for a call to {name}?",
        "Which type is the result of {name}?",
        "calling {name}, what kind of object comes out?",
        "Please tell me the return type of {name}.",
    ),
    "arguments": (
        "what do i need to pass to {name}",
        "Could you list the arguments for {name}, please?",
        "I can never remember the signature. Which arguments go into {name}?",
        "list {name} args",
        "What inputs does {name} expect?",
        "Show me all the parameters I can give {name}.",
        "When calling {name}, what can I put between the parentheses?",
    ),
}
"""Each with its placeholder, asked bare of openers and closers."""

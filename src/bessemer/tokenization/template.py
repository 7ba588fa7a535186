"""The chat template: ChatML as Jinja, the form that transformers and vLLM read.

`chat.render` writes the same text token by token; a test holds the two equal.
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Content is trimmed so that a turn's text never fuses with the line end of its header."""

ROLES = ("system", "user", "assistant")

"""Writes ids and assistant masks of transformers for chat templates with `{% generation %}` blocks.

Usage: python make_generation_masks.py TEMPLATES OUT.json

TEMPLATES is a directory of .jinja files: tests/golden/tokenizers/generation-templates for the committed vectors, or
`trl/chat_templates` of an installed TRL, of which the files that end in `_training.jinja` are used. Needs transformers
5.23. The output holds a small byte-level tokenizer, the templates and, for each of them, the ids and the masked ranges
of several chats.
"""

import datetime
import json
import re
import sys
from pathlib import Path

import transformers.utils.chat_template_utils as chat_template_utils
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

NOW = datetime.datetime(2025, 7, 10, 12, 0, 0)


class Clock(datetime.datetime):
    """The time of all renderings."""

    @classmethod
    def now(cls, tz=None):
        """The fixed time."""
        return NOW


chat_template_utils.datetime = Clock

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds numbers.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        },
    }
]


def call(a):
    """A call of the tool."""
    return [{"type": "function", "function": {"name": "add", "arguments": {"a": a}}}]


def user(text):
    """A message of the user."""
    return {"role": "user", "content": text}


def answer(text, **fields):
    """A message of the assistant."""
    return {"role": "assistant", "content": text, **fields}


CHATS = {
    "one turn": {"messages": [user("What is 2+2?"), answer("It is 4.")]},
    "two turns": {
        "messages": [user("Hi"), answer("Hello!\n\nHow are you?"), user("Fine. 你好 🙂"), answer("Good.")],
    },
    "system": {
        "messages": [{"role": "system", "content": "Be brief."}, user("A"), answer("B"), user("C"), answer("D e f")],
    },
    "reasoning": {"messages": [user("2+3?"), answer("Five.", reasoning_content="2 and 3\nare 5.")]},
    "reasoning in two turns": {
        "messages": [
            user("2+3?"),
            answer("Five.", reasoning_content="Add them."),
            user("And 4?"),
            answer("Nine.", reasoning_content="5 + 4."),
        ],
    },
    "tools": {
        "messages": [
            user("Add 1."),
            answer("", tool_calls=call(1)),
            {"role": "tool", "name": "add", "content": "1"},
            answer("It is 1."),
        ],
        "tools": TOOLS,
    },
    "words before a call": {
        "messages": [
            user("Add 2."),
            answer("I will.", tool_calls=call(2)),
            {"role": "tool", "name": "add", "content": "2"},
            answer("Two."),
            user("Thanks"),
            answer("Welcome."),
        ],
        "tools": TOOLS,
    },
}


def typed(messages):
    """The same messages with their contents as lists of parts."""
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]


def render(tokenizer, messages, tools):
    """Ids and mask of a chat, or None where the template raises an error or drops the last answer."""
    for form in (messages, typed(messages)):
        try:
            out = tokenizer.apply_chat_template(
                form, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
        except Exception:  # noqa: BLE001 - the error of any template
            continue
        if messages[-1]["content"] in tokenizer.decode(out["input_ids"]):
            return out["input_ids"], out["assistant_masks"]
    return None


def ranges(mask):
    """Ranges of ones."""
    out = []
    for idx, value in enumerate(mask):
        if value and (idx == 0 or not mask[idx - 1]):
            out.append([idx, idx + 1])
        elif value:
            out[-1][1] = idx + 1
    return out


def main():
    """Writes the file."""
    paths = sorted(Path(sys.argv[1]).glob("*.jinja"))
    paths = [path for path in paths if path.stem.endswith("_training")] or paths
    templates = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    marks = set()
    for source in templates.values():
        source = re.sub(r"\{#.*?#\}", "", source, flags=re.S)
        marks.update(re.findall(r"<[|｜][^|｜<>\s'\"]+[|｜]>", source))
        marks.update(re.findall(r"</?(?:think|tool_call|tool_response|start_of_turn|end_of_turn|end_of_utterance|turn)[|]?>", source))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(list(templates.values()), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ["<s>", "</s>", *sorted(marks)]])
    hf = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    cases = []
    for name, source in templates.items():
        hf.chat_template = source
        for chat, given in CHATS.items():
            rendered = render(hf, given["messages"], given.get("tools"))
            if rendered is None or not any(rendered[1]):
                continue
            cases.append({"template": name, "chat": chat, "ids": rendered[0], "mask": ranges(rendered[1])})
    out = {
        "tokenizer": json.loads(tokenizer.to_str()),
        "templates": templates,
        "chats": CHATS,
        "cases": cases,
    }
    Path(sys.argv[2]).write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(templates)} templates, {len(cases)} cases")


if __name__ == "__main__":
    main()

"""Compares Temper's tokenizers and chat templates with transformers, outside of CI.

    TEMPER_INTEROP=/tmp/interop cargo test -p tokenizer interop
    python tests/interop/check_tokenizer.py /tmp/interop

Each folder that Temper saved is opened with AutoTokenizer; ids (with and without special tokens),
decoded texts, rendered chats and their ids must be the same, and so must renderings of published
templates. It needs transformers and jinja2; nothing is downloaded.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import AutoTokenizer  # noqa: E402
from transformers.utils.chat_template_utils import render_jinja_template  # noqa: E402

failures = 0
checks = 0


def check(what, ours, theirs):
    global failures, checks
    checks += 1
    if ours != theirs:
        failures += 1
        print(f"DIFFERS {what}\n  temper       {ours!r}\n  transformers {theirs!r}"[:2000])


def main(folder):
    data = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    for entry in data["tokenizers"]:
        name = entry["name"]
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        for case in entry["cases"]:
            text = case["text"]
            check(f"{name} ids {text!r}", case["ids"], tokenizer(text)["input_ids"])
            plain = tokenizer(text, add_special_tokens=False)["input_ids"]
            check(f"{name} plain ids {text!r}", case["plain"], plain)
            check(f"{name} decoded {text!r}", case["decoded"], tokenizer.decode(case["ids"]))
            without = tokenizer.decode(case["ids"], skip_special_tokens=True)
            check(f"{name} without special {text!r}", case["decoded_without_special"], without)
        for chat in entry["chats"]:
            messages = chat["messages"]
            for prompt, text, ids in [(False, "text", "ids"), (True, "prompt", "prompt_ids")]:
                rendered = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=prompt
                )
                check(f"{name} {text} of {messages}", chat[text], rendered)
                encoded = tokenizer.apply_chat_template(
                    messages, tokenize=True, add_generation_prompt=prompt, return_dict=False
                )
                check(f"{name} {ids} of {messages}", chat[ids], encoded)
    for case in data["renderings"]:
        try:
            texts, _ = render_jinja_template(
                conversations=[case["messages"]],
                chat_template=case["template"],
                add_generation_prompt=case["add_generation_prompt"],
                bos_token="<s>",
                eos_token="</s>",
            )
            expected = texts[0]
        except Exception:  # a template that raises must raise here, too
            expected = None
        check(f"rendering of {case['template'][:80]!r}", case["text"], expected)
    print(f"{checks - failures} of {checks} the same")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

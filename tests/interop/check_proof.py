"""Replays the proof of exported directories in transformers.

    python3 tests/interop/check_proof.py DIR [DIR ...]

Compared are the ids of each prompt, the five largest logits of each position within the proof's tolerance, and the greedy
ids; of a sequence classifier, the score. Prints one line a directory; the exit code is 0 only if all agree. Runs with
transformers 4.46, 4.57 and 5; families that a version lacks are skipped, and differences that a version is known for are
named. Needs torch and transformers; no network.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from known_differences import VERSION, known_difference

DTYPE_KEY = "dtype" if VERSION >= (4, 56) else "torch_dtype"


def prompt_ids(tokenizer, prompt, is_chat_open):
    """Ids of a prompt as transformers makes them."""
    if "messages" in prompt:
        rendered = tokenizer.apply_chat_template(
            prompt["messages"], tokenize=True, add_generation_prompt=is_chat_open, return_dict=True
        )
        return rendered["input_ids"]
    return tokenizer(prompt["text"])["input_ids"]


def is_dynamic(config):
    """Whether angles depend on the length of the text by dynamic scaling."""
    section = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return section.get("rope_type") == "dynamic"


@torch.no_grad()
def check(directory):
    """The number of positions and the largest difference; raises where ids differ."""
    proof = json.loads((directory / "temper_proof.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    is_classifier = proof["output"] == "scores"
    auto = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
    # PyTorch's own attention omits Gemma 2's soft cap in transformers 4.
    kwargs = {DTYPE_KEY: torch.float32, "attn_implementation": "eager"}
    model = auto.from_pretrained(directory, **kwargs).eval()
    largest, n_positions = 0.0, 0
    for prompt in proof["prompts"]:
        if is_dynamic(model.config):
            # transformers keeps the angles of the longest text for later ones that are longer than the context.
            model = auto.from_pretrained(directory, **kwargs).eval()
        ids = prompt["ids"]
        rendered = prompt_ids(tokenizer, prompt, not is_classifier)
        assert rendered[: len(ids)] == ids, f"ids {rendered} instead of {ids}"
        if is_classifier:
            score = model(input_ids=torch.tensor([ids])).logits[0, 0].item()
            largest, n_positions = max(largest, abs(score - prompt["score"])), n_positions + 1
            continue
        text = ids + prompt["greedy_ids"]
        logits = model(input_ids=torch.tensor([text])).logits[0]
        for row, top_ids, top_logits in zip(logits, prompt["top_ids"], prompt["top_logits"], strict=True):
            largest = max(largest, (row[top_ids] - torch.tensor(top_logits)).abs().max().item())
            n_positions += 1
        greedy = logits[len(ids) - 1 : len(text) - 1].argmax(-1).tolist()
        assert greedy == prompt["greedy_ids"], f"greedy ids {greedy} instead of {prompt['greedy_ids']}"
    assert n_positions > 0, "the proof has no prompts"
    assert largest <= proof["tolerance"], f"difference {largest} above {proof['tolerance']}"
    return n_positions, largest


def main():
    """Checks all directories."""
    failed = False
    for directory in map(Path, sys.argv[1:]):
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in CONFIG_MAPPING or not hasattr(transformers, config["architectures"][0]):
            print(f"{directory}: skipped, transformers {transformers.__version__} has no {config['architectures'][0]}")
            continue
        try:
            n_positions, largest = check(directory)
            print(f"{directory}: transformers {transformers.__version__}, {n_positions} positions, largest {largest:.2e}")
        except (AssertionError, ValueError) as error:
            known = known_difference(directory.name)
            print(f"{directory}: {f'ok, known: {known}; ' if known else ''}{error}")
            failed |= not known
    sys.exit(failed)


if __name__ == "__main__":
    main()

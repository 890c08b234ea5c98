"""Opens exported directories with transformers and compares them with what Temper says about them.

For each DIR given (or found below it) there must be an expected.json beside config.json, written by
`cargo run --profile ci -p export --example interop`. Compared are: ids of raw text with and without special tokens,
decoded text, ids of rendered chats, end and pad ids, the names of the weights, logits, greedy ids and greedy text; of a
sequence classifier, scores. Runs with transformers 4.46, 4.57 and 5: families that a version lacks are skipped, and what an
older version is known to compute differently must differ. Prints one JSON line a directory; exit code 0 only if all agree.
Needs torch, transformers, safetensors; no network.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.logging import disable_progress_bar

import known_differences
from known_differences import VERSION

DTYPE_KEY = "dtype" if VERSION >= (4, 56) else "torch_dtype"

# Two implementations in f32 differ by this much: absolute, and relative to the largest.
LOGITS_ABSOLUTE, LOGITS_RELATIVE = 1e-5, 3e-6
# Greedy ids must agree where the two best logits differ by more than this.
GREEDY_GAP = 1e-4


class Differences:
    """Collects what does not agree in one directory."""

    def __init__(self):
        self.found = []
        self.n_compared = 0

    def equal(self, what, ours, theirs):
        self.n_compared += 1
        if ours != theirs:
            self.found.append(f"{what}: temper {ours!r:.300}, transformers {theirs!r:.300}")


def check_tokenizer(directory, expected, differences):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for case in expected["texts"]:
        text = case["text"]
        differences.equal(f"ids of {text!r}", case["ids"], tokenizer(text)["input_ids"])
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        differences.equal(f"plain ids of {text!r}", case["plain_ids"], plain)
        differences.equal(f"decoded {text!r}", case["decoded"], tokenizer.decode(case["ids"]))
        skipped = tokenizer.decode(case["ids"], skip_special_tokens=True)
        differences.equal(f"decoded without special tokens {text!r}", case["decoded_plain"], skipped)
    for case in expected["chats"]:
        ids = tokenizer.apply_chat_template(
            case["messages"], add_generation_prompt=case["add_generation_prompt"], return_dict=True
        )["input_ids"]
        differences.equal(f"ids of the chat {case['messages']!r}", case["ids"], ids)
    for name in ("bos", "eos", "pad"):
        theirs = getattr(tokenizer, f"{name}_token_id")
        differences.equal(f"{name} of the tokenizer", expected[name], theirs)
    differences.equal("number of ids", expected["n_ids"], len(tokenizer))
    return tokenizer


def check_ids_of_configs(directory, model, expected, differences):
    generation = GenerationConfig.from_pretrained(directory)
    as_list = lambda ids: [] if ids is None else ids if isinstance(ids, list) else [ids]
    differences.equal("end ids", expected["eos_ids"], as_list(generation.eos_token_id))
    differences.equal("end ids of config.json", expected["eos_ids"], as_list(model.config.eos_token_id))
    differences.equal("pad id", expected["pad"], generation.pad_token_id)
    differences.equal("bos id", expected["bos"], generation.bos_token_id)


def check_logits(model, expected, differences):
    worst = 0.0
    for case in expected["logits"]:
        with torch.no_grad():
            theirs = model(torch.tensor([case["ids"]])).logits[0]
        ours = torch.tensor(case["logits"])
        differences.equal("shape of logits", list(ours.shape), list(theirs.shape))
        difference = (ours - theirs).abs().max().item()
        allowed = LOGITS_ABSOLUTE + LOGITS_RELATIVE * theirs.abs().max().item()
        differences.n_compared += 1
        if not difference <= allowed:
            differences.found.append(f"logits differ by {difference}, allowed {allowed}")
        worst = max(worst, difference)
    return worst


def check_greedy(model, tokenizer, expected, differences):
    n_tokens = 0
    for case in expected["greedy"]:
        prompt = torch.tensor([case["prompt_ids"]])
        n = len(case["completion_ids"])
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=case["max_new_tokens"],
            output_logits=True,
            return_dict_in_generate=True,
        )
        theirs = out.sequences[0, prompt.shape[1] :].tolist()
        best = [step[0].topk(2).values for step in out.logits]
        close = [i for i, (first, second) in enumerate(best) if first - second <= GREEDY_GAP]
        until = close[0] if close else max(n, len(theirs))
        n_tokens += min(n, until)
        differences.equal("greedy ids", case["completion_ids"][:until], theirs[:until])
        if not close:
            text = tokenizer.decode(theirs, skip_special_tokens=True)
            differences.equal("greedy text", case["completion"], text)
    return n_tokens


NFC = "AutoTokenizer takes Qwen2's class whatever tokenizer_config.json names, and it composes characters (NFC)"


def known_difference(directory):
    """What this version is known to do differently with the directory; None if nothing."""
    if VERSION[0] == 5 and directory.name in ("qwen2", "qwen2-window"):
        return NFC
    return known_differences.known_difference(directory.name)


def load(directory, model_class):
    """The model in f32; eager attention computes windows and soft caps in every version."""
    kwargs = {DTYPE_KEY: torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    model, loading = model_class.from_pretrained(directory, **kwargs)
    return model.eval(), loading


def check_scores(directory, expected, differences):
    model, loading = load(directory, AutoModelForSequenceClassification)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        differences.equal(problem, [], sorted(loading.get(problem) or []))
    differences.equal("number of labels", 1, model.config.num_labels)
    worst = 0.0
    for case in expected["scores"]:
        with torch.no_grad():
            theirs = model(torch.tensor([case["ids"]])).logits[0].tolist()
        difference = abs(theirs[0] - case["score"])
        differences.n_compared += 1
        worst = max(worst, difference)
        if len(theirs) != 1 or not difference <= LOGITS_ABSOLUTE + LOGITS_RELATIVE * abs(case["score"]):
            differences.found.append(f"scores {theirs}, temper {case['score']}")
    return worst


def finish(directory, differences, **more):
    """Prints the result; a known difference of this version must be there."""
    known = known_difference(directory)
    is_ok = bool(differences.found) if known else not differences.found
    report = {"directory": str(directory), "transformers": transformers.__version__, "ok": is_ok}
    if known:
        report["known"] = known
    report |= {"compared": differences.n_compared, **more, "differences": differences.found}
    print(json.dumps(report, ensure_ascii=False))
    return is_ok


def missing(directory):
    """Why this version cannot open the directory; None if it can."""
    config = json.loads((directory / "config.json").read_text())
    if config["model_type"] not in CONFIG_MAPPING:
        return f"no family {config['model_type']}"
    name = config["architectures"][0]
    return None if hasattr(transformers, name) else f"no class {name}"


def check(directory):
    expected = json.loads((directory / "expected.json").read_text())
    if reason := missing(directory):
        report = {"directory": str(directory), "transformers": transformers.__version__, "skipped": reason}
        print(json.dumps(report))
        return True
    differences = Differences()
    if "scores" in expected:
        return finish(directory, differences, largest_difference=check_scores(directory, expected, differences))
    tokenizer = check_tokenizer(directory, expected, differences)
    model, loading = load(directory, AutoModelForCausalLM)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        differences.equal(problem, [], sorted(loading.get(problem) or []))
    check_ids_of_configs(directory, model, expected, differences)
    worst = check_logits(model, expected, differences)
    n_greedy = check_greedy(model, tokenizer, expected, differences)
    return finish(directory, differences, greedy_tokens=n_greedy, largest_logits_difference=worst)


def check_or_refuse(directory):
    """A configuration that this version is known to refuse passes."""
    try:
        return check(directory)
    except ValueError as error:
        if not known_difference(directory):
            raise
        report = {"directory": str(directory), "transformers": transformers.__version__, "ok": True}
        print(json.dumps(report | {"known": known_difference(directory), "refused": str(error)}))
        return True


def main():
    given = [Path(argument) for argument in sys.argv[1:]]
    directories = sorted({path.parent for root in given for path in root.rglob("expected.json")})
    if not directories:
        sys.exit("usage: check_transformers.py DIR...   (no expected.json found)")
    disable_progress_bar()
    results = [check_or_refuse(directory) for directory in directories]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()

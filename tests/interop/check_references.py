#!/usr/bin/env python3
"""Opens exports of reference models in transformers and compares their logits with the reference's own.

    python3 tests/interop/check_references.py GOLDEN_DIR EXPORTED_DIR [GOLDEN_DIR EXPORTED_DIR ...]

GOLDEN_DIR has io.safetensors of transformers 5 (tests/golden/models or tests/golden/reward); EXPORTED_DIR is what
`temper export` wrote of a copy of it with a tokenizer. Runs with transformers 4.46, 4.57 and 5; families that a version lacks
are skipped. Each row of the reference is computed alone, without padding, because angles of some scalings depend on the length
of a text. Needs torch, transformers, safetensors; no network.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.logging import disable_progress_bar

from known_differences import VERSION, known_difference

DTYPE_KEY = "dtype" if VERSION >= (4, 56) else "torch_dtype"
TOLERANCE = 2e-5


def rows(vectors):
    """The unpadded rows, with the number of their first and last position."""
    for idx, (ids, mask) in enumerate(zip(vectors["input_ids"], vectors["attention_mask"])):
        real = mask.nonzero()[:, 0]
        yield idx, ids[real][None].long(), real


def check(golden, exported):
    config = json.loads((exported / "config.json").read_text())
    name = config["architectures"][0]
    if config["model_type"] not in CONFIG_MAPPING or not hasattr(transformers, name):
        print(f"{exported.name}: skipped, transformers {transformers.__version__} has no {name}")
        return 0
    vectors = load_file(golden / "io.safetensors")
    if "attention_mask" not in vectors:
        print(f"{exported.name}: skipped, the reference was rounded as a whole, its RoPE frequencies too")
        return 0
    is_scorer = "scores" in vectors
    model_class = AutoModelForSequenceClassification if is_scorer else AutoModelForCausalLM
    kwargs = {DTYPE_KEY: torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    known = known_difference(golden.name)
    try:
        model, loading = model_class.from_pretrained(exported, **kwargs)
    except ValueError as error:
        if not known:
            raise
        print(f"{exported.name}: ok, transformers {transformers.__version__} refuses it, known: {known}")
        return 0
    problems = [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading.get(key)]
    model.eval()
    worst = largest = 0.0
    for idx, ids, real in rows(vectors):
        with torch.no_grad():
            logits = model(ids).logits[0]
        expected = vectors["scores"][idx][None] if is_scorer else vectors["logits"][idx][real]
        worst = max(worst, (logits - expected).abs().max().item())
        largest = max(largest, expected.abs().max().item())
    is_near = not problems and worst <= TOLERANCE * max(1.0, largest)
    is_ok = is_near != bool(known)
    print(f"{exported.name}: {'ok' if is_ok else 'DIFFERENT'}, transformers {transformers.__version__}, "
          f"{worst:.1e} of {largest:.1f} {problems or ''}" + (f", known: {known}" if known else ""))
    return int(not is_ok)


def main():
    pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))
    if not pairs:
        sys.exit(__doc__)
    disable_progress_bar()
    failures = sum(check(Path(golden), Path(exported)) for golden, exported in pairs)
    print(f"{len(pairs) - failures} passed, {failures} failed")
    sys.exit(int(failures > 0))


main()

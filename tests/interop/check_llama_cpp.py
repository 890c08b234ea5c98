#!/usr/bin/env python3
"""Runs GGUF files of reference models in llama.cpp and compares them with the vectors of transformers.

    python3 tests/interop/check_llama_cpp.py GOLDEN_DIR FILE.gguf [GOLDEN_DIR FILE.gguf ...]

GOLDEN_DIR is a directory of tests/golden/models; `cargo run --profile ci -p gguf --example write_reference` writes its
FILE.gguf. Compared are the greedy ids (the end token suppressed) wherever the two best logits are not close, and the
log-probabilities of the most likely tokens. Needs the Python packages xllamacpp, numpy and safetensors; without them it
prints that it skips and exits with 0. llama.cpp keeps keys and values in f16 unless told otherwise; here they are f32.
"""

import sys
from pathlib import Path

try:
    import numpy as np
    import xllamacpp as xlc
    from safetensors.numpy import load_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(0)

GAP = 1e-3
TOLERANCE = 2e-3
END_TOKEN = 2


def server(path):
    params = xlc.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 256, 1, 2
    params.cache_type_k = params.cache_type_v = xlc.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xlc.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
    # Its templates must not be tried on models without one.
    params.use_jinja = False
    return xlc.Server(params)


def check(golden, path):
    """The number of differences."""
    vectors = load_file(golden / "greedy.safetensors")
    prompt, sequence = vectors["prompt"][0].tolist(), vectors["sequence"][0].tolist()
    logits = vectors["logits"][0].astype(np.float64)
    answer = server(path).handle_completions({
        "prompt": prompt, "n_predict": len(logits), "temperature": 0, "n_probs": 5, "cache_prompt": False,
        "logit_bias": [[END_TOKEN, False]], "ignore_eos": True,
    })
    steps = answer["choices"][0]["logprobs"]["content"]
    expected = sequence[len(prompt):]
    worst = 0.0
    for step, (found, wanted) in enumerate(zip(steps, expected)):
        # llama.cpp reports probabilities before it suppresses the end token.
        row = logits[step].copy()
        log_sum = np.log(np.exp(row - row.max()).sum()) + row.max()
        row[END_TOKEN] = -np.inf
        best = np.sort(row)[-2:]
        if found["id"] != wanted:
            if best[1] - best[0] > GAP:
                print(f"{path.name}: step {step}: id {found['id']}, transformers {wanted}")
                return 1
            break
        for top in found["top_logprobs"]:
            if top["id"] != END_TOKEN:
                worst = max(worst, abs(top["logprob"] - (row[top["id"]] - log_sum)))
    same = len(steps) == len(expected)
    print(f"{path.name}: {len(steps)} ids, log-probabilities within {worst:.1e}{'' if same else ', too few'}")
    return int(worst > TOLERANCE or not same)


def main():
    pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))
    if not pairs:
        sys.exit(__doc__)
    failures = sum(check(Path(golden), Path(path)) for golden, path in pairs)
    print(f"{len(pairs) - failures} passed, {failures} failed")
    sys.exit(int(failures > 0))


main()

#!/usr/bin/env python3
"""Compares greedy text of a GGUF file in Temper and in llama.cpp.

    python3 tests/interop/check_greedy_text.py TEMPER FILE.gguf [PROMPT ...]

Compared are the ids of each prompt's tokens as llama.cpp counts them, and the greedy text. Needs the Python package
xllamacpp; without it the script prints that it skips and exits with 0.
"""

import json
import subprocess
import sys

try:
    import xllamacpp as xlc
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(0)

PROMPTS = ["The capital of France is", "Once upon a time there was a", "def main():\n", "In 2024, 1234 people"]
N_TOKENS = 24


def temper(binary, path, prompts):
    flags = [flag for prompt in prompts for flag in ("--prompt", prompt)]
    command = [binary, "generate", path, "--greedy", "--max-new-tokens", str(N_TOKENS), *flags]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line)["completion"] for line in lines]


def llama_cpp(path, prompts):
    params = xlc.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 512, 1, 2
    params.cache_type_k = params.cache_type_v = xlc.ggml_type.GGML_TYPE_F32
    params.warmup = False
    server = xlc.Server(params)
    request = {"n_predict": N_TOKENS, "temperature": 0, "cache_prompt": False}
    return [server.handle_completions({**request, "prompt": p})["choices"][0]["text"] for p in prompts]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    binary, path, prompts = sys.argv[1], sys.argv[2], sys.argv[3:] or PROMPTS
    failures = 0
    for prompt, ours, theirs in zip(prompts, temper(binary, path, prompts), llama_cpp(path, prompts)):
        same = ours == theirs
        failures += not same
        print(f"{'same' if same else 'DIFFERENT'}: {prompt!r} -> {ours!r}" + ("" if same else f", llama.cpp {theirs!r}"))
    print(f"{len(prompts) - failures} passed, {failures} failed")
    sys.exit(int(failures > 0))


main()

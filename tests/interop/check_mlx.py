#!/usr/bin/env python3
"""Opens exports of reference models in mlx-lm, on the CPU, and compares their logits with the reference's.

    python3 tests/interop/check_mlx.py GOLDEN_DIR EXPORTED_DIR [GOLDEN_DIR EXPORTED_DIR ...]

GOLDEN_DIR has io.safetensors of transformers 5; EXPORTED_DIR is what `temper export` wrote of a copy of it with a tokenizer.
What mlx-lm is known to compute differently (docs/exports.md) must differ. Needs the Python packages mlx, mlx-lm and, on Linux,
mlx-cpu; without them the script says that it skips and exits with 0.
"""

import json
import sys
from pathlib import Path

try:
    import mlx.core as mx
    import numpy as np
    from mlx_lm.utils import load_model
    from safetensors.numpy import load_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(0)

TOLERANCE = 5e-5
KNOWN = {
    "models-phi3-longrope": "LongRoPE always uses the long factors",
    "models-llama-longrope": "LongRoPE always uses the long factors",
    "models-phi3": "no windows in Phi-3",
    "models-qwen2-window": "no windows in Qwen2",
    "models-mistral-window": "no windows in Mistral",
    "models-gemma2": "no windows in Gemma 2",
    "models-gpt2": "opens GPT-2 with bare names alone, which transformers does not write",
}


def check(golden, exported):
    config = json.loads((exported / "config.json").read_text())
    vectors = load_file(golden / "io.safetensors")
    if "attention_mask" not in vectors or "logits" not in vectors:
        print(f"{exported.name}: skipped, no logits to compare with")
        return 0
    known = KNOWN.get(exported.name)
    try:
        model, _ = load_model(exported)
    except Exception as error:
        if known:
            print(f"{exported.name}: ok, does not open, known: {known}")
            return 0
        print(f"{exported.name}: DIFFERENT, {config['model_type']} does not open: {error!r:.200}")
        return 1
    model.eval()
    worst = largest = 0.0
    for idx, mask in enumerate(vectors["attention_mask"]):
        real = np.nonzero(mask)[0]
        ids = vectors["input_ids"][idx][real]
        logits = np.array(model(mx.array(ids[None].astype(np.int32))).astype(mx.float32))[0]
        expected = vectors["logits"][idx][real]
        worst = max(worst, float(np.abs(logits - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    is_near = worst <= TOLERANCE * max(1.0, largest)
    is_ok = is_near != bool(known)
    print(f"{exported.name}: {'ok' if is_ok else 'DIFFERENT'}, {worst:.1e} of {largest:.1f}"
          + (f", known: {known}" if known else ""), flush=True)
    return int(not is_ok)


def main():
    mx.set_default_device(mx.cpu)
    pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))
    if not pairs:
        sys.exit(__doc__)
    failures = sum(check(Path(golden), Path(exported)) for golden, exported in pairs)
    print(f"{len(pairs) - failures} passed, {failures} failed")
    sys.exit(int(failures > 0))


main()

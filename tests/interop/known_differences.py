"""What versions of transformers compute differently from transformers 5, or refuse: docs/exports.md.

Used by the scripts of this directory. Names are the ends of directories' names, after the reference or family of the model.
"""

import transformers

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
KNOWN = {
    (4, 46): {
        "llama-yarn": "YaRN counts rotations over max_position_embeddings",
        "llama-longrope": "LongRoPE always uses the long factors",
        "phi3-longrope": "no partial rotation in Phi-3",
        "qwen2-window": "windows in all blocks, whatever max_window_layers says",
        "phi3-longrope-score": "no partial rotation in Phi-3",
    },
}


def known_difference(name):
    """Why this version differs on the directory of this name; None if it must not."""
    ends = KNOWN.get(VERSION, {})
    return next((reason for end, reason in ends.items() if name == end or name.endswith(f"-{end}")), None)

#!/usr/bin/env python3
"""Converts exported directories with llama.cpp's own convert_hf_to_gguf.py and replays their proofs on the result.

    python3 tests/interop/check_converter.py TEMPER LLAMA_CPP EXPORTED_DIR [EXPORTED_DIR ...]

LLAMA_CPP is a checkout of llama.cpp (its script, `conversion` and `gguf-py`). The proof of the directory is put beside the
converted file, and `temper verify` must accept it: prompts have the same ids, and logits are equal within the tolerance. The
converter knows pre-tokenizers of published tokenizers by a hash; for others the name is set here, as `--pre NAME` says
(default: gpt-2, of Temper's byte-level tokenizers). Needs torch, transformers, sentencepiece; no network.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# What the converter or llama.cpp itself does not have, by the end of a directory's name.
KNOWN = {
    "llama-dynamic": "no dynamic RoPE",
    "llama-longrope": "the context before scaling is lost in families other than Phi-3",
    "exaone4": "no windows in EXAONE 4 but in 64 layers",
    "gemma2": "needs a tokenizer.model",
    "gemma3": "rows of the embedding without a token are removed",
    "gemma3_text": "no patterns of windows but llama.cpp's own",
    "gemma3_text-linear": "no patterns of windows but llama.cpp's own",
    "gpt2-no-bias-char": "no character tokenizers",
    "gpt2-scaled": "no scaling by the number of the block",
    "llama-char": "no character tokenizers",
    "phi3": "needs a tokenizer.model",
    "phi3-longrope": "needs a tokenizer.model",
    "mistral": "no windows in Mistral",
    "mistral-window": "no windows in Mistral",
    "qwen2-window": "no windows in Qwen2",
    "qwen3-window": "no windows in Qwen3",
    "smollm3": "no layers without RoPE but every fourth one",
}


def convert(llama_cpp, exported, out, pre):
    """Runs the converter in a process of its own, with the pre-tokenizer's name set where it is unknown."""
    code = f"""
import runpy, sys
sys.path[:0] = [{str(llama_cpp / 'gguf-py')!r}, {str(llama_cpp)!r}]
try:
    from conversion.base import TextModel
except ImportError:
    TextModel = None
if TextModel is not None:
    original = TextModel.get_vocab_base_pre
    def get_vocab_base_pre(self, tokenizer):
        try:
            return original(self, tokenizer)
        except NotImplementedError:
            return {pre!r}
    TextModel.get_vocab_base_pre = get_vocab_base_pre
sys.argv = ['convert_hf_to_gguf.py', {str(exported)!r}, '--outfile', {str(out)!r}, '--outtype', 'f32']
runpy.run_path({str(llama_cpp / 'convert_hf_to_gguf.py')!r}, run_name='__main__')
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def check(temper, llama_cpp, exported, pre):
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "model.gguf"
        done = convert(llama_cpp, exported, out, pre)
        known = next((why for end, why in KNOWN.items() if exported.name.endswith(end)), None)
        if done.returncode != 0 or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            print(f"{exported.name}: {'ok, known: ' + known if known else 'DIFFERENT'}, not converted: {last:.160}", flush=True)
            return int(not known)
        shutil.copy(exported / "temper_proof.json", Path(place) / "model.proof.json")
        replay = subprocess.run([temper, "verify", str(out)], capture_output=True, text=True)
        report = json.loads(replay.stdout.splitlines()[0])
        quantities = report["quantities"]
        is_ok = report["passed"] != bool(known)
        logits = quantities.get("logits", {}).get("largest_difference")
        print(f"{exported.name}: {'ok' if is_ok else 'DIFFERENT'}, logits within {logits}"
              + (f", known: {known}" if known else "")
              + ("" if report["passed"] else f" {report.get('error', '')} {quantities}"), flush=True)
        return int(not is_ok)


def main():
    arguments = sys.argv[1:]
    pre = "gpt-2"
    if "--pre" in arguments:
        at = arguments.index("--pre")
        pre = arguments[at + 1]
        del arguments[at : at + 2]
    if len(arguments) < 3:
        sys.exit(__doc__)
    temper, llama_cpp, directories = arguments[0], Path(arguments[1]), arguments[2:]
    failures = sum(check(temper, llama_cpp, Path(directory), pre) for directory in directories)
    print(f"{len(directories) - failures} passed, {failures} failed")
    sys.exit(int(failures > 0))


main()

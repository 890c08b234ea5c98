#!/usr/bin/env python3
"""GRPO updates of TRL 1.12 on the CPU: the other side of `temper bench grpo7m`. Prints one JSON line.

usage: peer_grpo.py [TRL_FOLDER …] [--steps N]

TRL_FOLDER are folders of packages that are not installed: TRL 1.12.0 by `pip install --no-deps --target FOLDER trl==1.12.0`, and
datasets. torch, transformers and accelerate are installed.

The policy has the shape of the 7m workloads and random weights. An update samples 8 completions of 64 tokens to each of 16
prompts of 32 tokens at temperature 1, scores them with random rewards and makes one optimizer step: one iteration, no reference
model, micro-batches of 16, no gradient checkpointing. The first update is not timed.
"""
import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time

START = time.time()
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folders", nargs="*")
parser.add_argument("--steps", type=int, default=5)
options = parser.parse_args()
sys.path[:0] = options.folders

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from datasets.table import InMemoryTable  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

VOCABULARY, PROMPTS, GENERATIONS, PROMPT_TOKENS, NEW_TOKENS, MICRO_BATCH = 4096, 16, 8, 32, 64, 16
torch.manual_seed(0)
torch.set_num_threads(int(os.environ.get("THREADS", os.cpu_count())))


class Timer(TrainerCallback):
    """The time of each update."""

    def __init__(self):
        self.times, self.last = [], None

    def on_step_begin(self, args, state, control, **kwargs):
        self.last = self.last or time.time()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.time()
        self.times.append(now - self.last)
        self.last = now


def main():
    # No special token is a part of another word: it would be found there.
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate(special + [f"t{i}" for i in range(len(special), VOCABULARY)])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    config = LlamaConfig(
        hidden_size=256, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8, intermediate_size=768,
        vocab_size=VOCABULARY, tie_word_embeddings=False, max_position_embeddings=1024,
        bos_token_id=1, eos_token_id=2, pad_token_id=0)
    policy = LlamaForCausalLM(config)
    draw = random.Random(0)
    prompt = lambda: " ".join(f"t{draw.randrange(len(special), VOCABULARY)}" for _ in range(PROMPT_TOKENS))
    # A fingerprint is given because computing one pickles the table, which some versions of pyarrow cannot.
    data = Dataset(InMemoryTable.from_pydict({"prompt": [prompt() for _ in range(512)]}), fingerprint="prompts")
    updates = options.steps + 1
    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", logging_steps=1, disable_tqdm=True, max_steps=updates, learning_rate=1e-6,
        per_device_train_batch_size=MICRO_BATCH, gradient_accumulation_steps=PROMPTS * GENERATIONS // MICRO_BATCH,
        num_generations=GENERATIONS, num_iterations=1, beta=0.0, temperature=1.0, max_completion_length=NEW_TOKENS,
        # No completion ends early.
        generation_kwargs={"min_new_tokens": NEW_TOKENS})
    timer = Timer()
    trainer = GRPOTrainer(
        model=policy, args=args, processing_class=tokenizer, train_dataset=data, callbacks=[timer],
        reward_funcs=lambda completions, **kwargs: [draw.random() for _ in completions])
    started = time.time()
    trainer.train()
    lengths = [row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row]
    assert lengths and all(length == NEW_TOKENS for length in lengths), lengths
    # Tokens of all prompts and completions so far.
    assert trainer.state.log_history[0]["num_tokens"] == PROMPTS * GENERATIONS * (PROMPT_TOKENS + NEW_TOKENS)
    times = timer.times[1:]
    episodes = PROMPTS * GENERATIONS
    print(json.dumps({
        "workload": "grpo7m", "episodes_per_s": round(episodes * len(times) / sum(times), 3),
        "times": [round(seconds, 4) for seconds in times], "start_s": round(started - START, 1),
        "first_step_s": round(started - START + timer.times[0], 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "dtype": "f32", "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()

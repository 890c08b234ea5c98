#!/usr/bin/env python3
"""What torch does on this machine's GPU with two common shapes: the other side of a comparison with Temper.

Training of all weights with torch.compile, LoRA by PEFT, generation by transformers; random weights and ids, bf16 autocast,
1,024 tokens a row. One JSON line each: tokens_per_s, share of the given peak FLOP/s, peak memory. Needs torch, transformers
and peft. `--tiny --device cpu` runs it in a minute with sizes that mean nothing, to see that it runs.
"""
import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

SHAPES = {
    "gpt2-124m": lambda: GPT2LMHeadModel(GPT2Config()),
    "llama-1.1b": lambda: LlamaForCausalLM(LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
        num_attention_heads=32, num_key_value_heads=4, max_position_embeddings=2048)),
}
TINY = {
    "gpt2-124m": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)),
    "llama-1.1b": lambda: LlamaForCausalLM(LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048)),
}


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(device, n, run):
    """Median seconds of n calls, after three that compile and warm up."""
    times = []
    for i in range(n + 3):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        if i >= 3:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def report(args, device, name, what, tokens, seconds, flop):
    line = {"shape": name, "what": what, "rows": args.rows, "length": args.length,
            "tokens_per_s": round(tokens / seconds, 1), "seconds": round(seconds, 4)}
    if flop and args.peak_tflops:
        line["mfu"] = round(flop / seconds / args.peak_tflops / 1e12, 3)
    if device.type == "cuda":
        line["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        torch.cuda.reset_peak_memory_stats()
    print(json.dumps(line), flush=True)


def train(args, device, name, model, what):
    config = model.config
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=device.type == "cuda")
    # 6 operations a parameter and token, 4 where only an adapter is trained, and attention's 12·layers·width·length/2.
    n = sum(p.numel() for p in model.parameters()) - config.vocab_size * config.hidden_size
    per_token = (6 if what == "full" else 4) * (n + config.vocab_size * config.hidden_size)
    per_token += 6 * config.num_hidden_layers * config.hidden_size * args.length
    compiled = torch.compile(model) if not args.no_compile else model
    ids = torch.randint(config.vocab_size, (args.rows, args.length), device=device)

    def step():
        with torch.autocast(device.type, torch.bfloat16):
            loss = compiled(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    tokens = args.rows * args.length
    report(args, device, name, what, tokens, timed(device, args.steps, step), per_token * tokens)


def generate(args, device, name, model):
    model = model.to(torch.bfloat16).eval()
    prompt = torch.randint(model.config.vocab_size, (args.rows, 32), device=device)

    def run():
        with torch.no_grad():
            model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, min_new_tokens=args.new,
                           max_new_tokens=args.new, pad_token_id=0)

    report(args, device, name, "generate", args.rows * args.new, timed(device, 3, run), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--new", type=int, default=128, help="tokens that generation makes")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16 peak; 989 is an H100's")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    for name, make in (TINY if args.tiny else SHAPES).items():
        train(args, device, name, make().to(device), "full")
        names = ["c_attn", "c_proj", "c_fc"] if name.startswith("gpt2") else "all-linear"
        lora = LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM")
        train(args, device, name, get_peft_model(make().to(device), lora), "lora")
        generate(args, device, name, make().to(device))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes reference vectors of a model family: a tiny random model of transformers with its numbers, for `temper verify`.

    python3 tests/interop/make_family.py MODEL_TYPE OUT [KEY=VALUE ...]

MODEL_TYPE is that of config.json, KEY=VALUE are keys of the family's configuration class beside the usual sizes, with values in
JSON: give windows, patterns and factors values that matter in a model of two blocks and texts of 20 to 120 tokens. OUT gets
config.json, model.safetensors, the vectors, and config.legacy.json with RoPE as transformers 4 spells it; OUT.tensors gets names
and shapes. Numbers are f32 on the CPU with attention written out ("eager"). Needs torch, transformers, safetensors; no network.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB, LONG = 160, 120
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 112, "max_position_embeddings": 128, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}


def build(model_type, keys):
    """A model whose weights are so large that each part of it changes the logits."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **keys})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight += 0.1 * torch.randn_like(weight)
            else:
                weight.copy_((0.35 if "embed" in name else 0.12) * torch.randn_like(weight))
    return model


def texts():
    """Three rows, the second with padding on its right; labels without a prompt, a hole and the padding."""
    ids = torch.randint(3, VOCAB, (3, 19), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[1, 14:], mask[1, 14:] = 0, 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[0, :6] = -100
    labels[2, 9:12] = -100
    return ids, mask, labels


def save(tensors, path):
    """Writes tensors, each with its own memory."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)


def greedy(model, prompts, mask, n):
    """Greedy continuation of `n` tokens, and the logits of each step."""
    out = model.generate(prompts, attention_mask=mask, max_new_tokens=n, min_new_tokens=n, do_sample=False,
                         output_logits=True, return_dict_in_generate=True)
    return out.sequences, torch.stack(out.logits, 1)


def legacy(config):
    """The same configuration in the spelling of transformers 4, without keys that it computes."""
    config = dict(config)
    rope = dict(config.pop("rope_parameters"))
    if "rope_theta" not in rope:
        return None
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    return config


def main():
    model_type, out = sys.argv[1], Path(sys.argv[2])
    keys = dict(argument.split("=", 1) for argument in sys.argv[3:])
    model = build(model_type, {key: json.loads(value) for key, value in keys.items()})
    model.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    if (older := legacy(config)) is not None:
        (out / "config.legacy.json").write_text(json.dumps(older, indent=1))
    ids, mask, labels = texts()
    result = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    result.loss.backward()
    states = {f"hidden_states.{idx}": state for idx, state in enumerate(result.hidden_states)}
    save({"input_ids": ids, "attention_mask": mask, "labels": labels, "logits": result.logits,
          "loss": result.loss.reshape(1), **states}, out / "io.safetensors")
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    save(grads, out / "grads.safetensors")
    # Rows of a batch with padding on the left continue as if each were alone.
    padded, padded_mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    padded[0], padded_mask[0] = ids[0, :9], 1
    padded[1, 4:], padded_mask[1, 4:] = ids[2, :5], 1
    with torch.no_grad():
        prompt = ids[:1, :7]
        sequence, logits = greedy(model, prompt, torch.ones_like(prompt), 24)
        padded_sequences, padded_logits = greedy(model, padded, padded_mask, 16)
        long = torch.randint(3, VOCAB, (1, LONG), generator=torch.Generator().manual_seed(40))
        save({"input_ids": long, "logits": model(input_ids=long).logits}, out / "long.safetensors")
    save({"prompt": prompt, "sequence": sequence, "logits": logits, "left_padded_prompts": padded,
          "left_padded_mask": padded_mask, "left_padded_sequences": padded_sequences,
          "left_padded_logits": padded_logits}, out / "greedy.safetensors")
    tensors = sorted(f"{name} {list(tensor.shape)}\n" for name, tensor in model.state_dict().items())
    Path(f"{out}.tensors").write_text("".join(tensors))


if __name__ == "__main__":
    main()

"""Writes a small tiktoken file and the ids that the package tiktoken gives with published patterns.

Usage: python make_tiktoken.py DIR

Writes DIR/small.tiktoken and DIR/tiktoken.json. Needs tiktoken; nothing is downloaded. The ranks are learned from the
texts below by merging the most frequent pair of tokens, within words of the pattern of GPT-4.
"""

import base64
import json
import sys
from collections import Counter
from pathlib import Path

import regex
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + REST
O200K = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{SUFFIX}?",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{SUFFIX}?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        REST,
    ]
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
PATTERNS = {
    "llama3": LLAMA3,
    "qwen": LLAMA3.replace("{1,3}", ""),
    "cl100k_base": CL100K,
    "o200k_base": O200K,
    "r50k_base": r50k_pat_str,
}
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "The cat sat on the mat, and the cat's hat isn't the hat that the CAT'S mat had.",
    "  two  spaces\tand\ttabs\r\nand lines\n\n\n end \n \n  ",
    "1234567890 3.14 1,000,000 a1b22c333d4444",
    "camelCase HTTPServer parseJSON I'LL we'Ve ſ'ſ",
    "naïve café — “quoted” … ½ e\u0301cole ＦＵＬＬ",
    "你好，世界。こんにちは 안녕하세요 مرحبا नमस्ते",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 \u200bzero \ufeffbom",
    "fn main() {\n    println!(\"{}\", 1 + 2); // ok\n}\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                x",
    "trailing   ",
    "a//b\n/c\r\n\r\n",
]


def learn(n_ranks):
    """Ranks of bytes and of merged pairs."""
    words = Counter()
    for text in TEXTS:
        words.update(word.encode() for word in regex.findall(LLAMA3, text))
    ranks = {bytes([byte]): byte for byte in range(256)}
    split = {word: [bytes([byte]) for byte in word] for word in words}
    while len(ranks) < n_ranks:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(split[word], split[word][1:]):
                pairs[pair] += count
        if not pairs:
            break
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks.setdefault(left + right, len(ranks))
        for parts in split.values():
            idx = 0
            while idx + 1 < len(parts):
                if parts[idx] == left and parts[idx + 1] == right:
                    parts[idx : idx + 2] = [left + right]
                idx += 1
    return ranks


def main():
    """Writes the two files."""
    out = Path(sys.argv[1])
    ranks = learn(520)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    (out / "small.tiktoken").write_text("".join(lines), encoding="ascii")
    ids = {}
    for name, pattern in PATTERNS.items():
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|end|>": 1000})
        ids[name] = [encoding.encode(text) for text in TEXTS]
    cases = {"patterns": PATTERNS, "texts": TEXTS, "ids": ids}
    (out / "tiktoken.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

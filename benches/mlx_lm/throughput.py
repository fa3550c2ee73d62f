"""How fast mlx-lm answers several prompts at once, by its own batch generator.

    python benches/mlx_lm/throughput.py MODEL --rows 1,4,8,16

Prints one JSON object for each number of rows, as `cargo run --example throughput` of the engine does
for the same prompts: prefill is over when every row has its first token, and decode is what comes
after that. Prefill is given in prompt tokens a second, decode in new ones.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load_model

# Repeats of one measurement: so many, or as many as fit into so long.
REPEATS_MAX = 5
REPEATS_S = 10.0
WARM_TOKENS = 4


def prompts_of(model_config, rows, tokens):
    """Any tokens do: their values cost nothing. The same as the engine's need not be."""
    first, end = model_config["vocab_size"] // 2, model_config["vocab_size"]
    return [
        [first + (row * 7919 + place * 104729) % (end - first) for place in range(tokens)]
        for row in range(rows)
    ]


def run(model, prompts, new_tokens):
    """Seconds of prefill, seconds of decode, and the tokens of the latter."""
    rows = len(prompts)
    generator = BatchGenerator(
        model, stop_tokens=None, completion_batch_size=rows, prefill_batch_size=rows
    )
    generator.insert(prompts, [new_tokens] * rows)
    begun, count, counted = set(), 0, 0
    at, all_begun = time.perf_counter(), None
    while responses := generator.next_generated():
        count += len(responses)
        if all_begun is None:
            begun |= {response.uid for response in responses}
            if len(begun) == rows:
                all_begun, counted = time.perf_counter(), count
    end = time.perf_counter()
    assert count == rows * new_tokens, f"{count} tokens of {rows} rows"
    return all_begun - at, end - all_begun, count - counted


def measure(model, config, rows, prompt_tokens, new_tokens):
    run(model, prompts_of(config, rows, WARM_TOKENS), WARM_TOKENS)
    prefill, decode = [], []
    began = time.perf_counter()
    while len(prefill) < REPEATS_MAX and (not prefill or time.perf_counter() < began + REPEATS_S):
        first, rest, count = run(model, prompts_of(config, rows, prompt_tokens), new_tokens)
        prefill.append(rows * prompt_tokens / first)
        decode.append(count / rest)
    return {
        "rows": rows,
        "prefill_tokens_per_s": statistics.median(prefill),
        "decode_tokens_per_s": statistics.median(decode),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", default="1,4,8,16")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    model, config = load_model(args.model)
    for rows in args.rows.split(","):
        found = measure(model, config, int(rows), args.prompt_tokens, args.tokens)
        rates = [f"{found[rate + '_tokens_per_s']:.0f}" for rate in ("prefill", "decode")]
        said = f"    {rows} rows: prefill {rates[0]}, decode {rates[1]} tokens a second"
        print(said, file=sys.stderr, flush=True)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

"""Makes the models that the engine and mlx-lm are compared on.

    python benches/mlx_lm/make.py OUT

Two Qwen3 with random weights, of about 6 and about 60 million parameters, in float32, each with a
tokenizer and a chat template that both servers can use. Needs mlx-lm; `cargo xtask bench engine` sees
to that. What comes out is the same on every machine.
"""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3

SIZES = {
    "qwen3-6m": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 8192,
    },
    "qwen3-60m": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 16384,
    },
}
WEIGHT_SCALE = 0.06
END = "<|end|>"
SPECIALS = [END, "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_letters():
    """The letter by which a byte-level vocabulary writes each byte, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def vocabulary(size):
    """Tokens, merges and words. A word is one token, at the start of a text and after a space."""
    space = byte_letters()[ord(" ")]
    tokens = SPECIALS + byte_letters()
    syllables = [(consonant, vowel) for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    merges = list(syllables)
    tokens += ["".join(pair) for pair in syllables]
    pairs = [(a + b, c + d) for a, b in syllables for c, d in syllables]
    threes = [(a + b, c) for a, b in pairs for c in ("".join(pair) for pair in syllables)]
    room = (size - len(tokens)) // 2
    # Where words of two syllables do not suffice, some have three.
    made = (pairs + threes)[:room]
    words = ["".join(pair) for pair in made]
    merges += made + [(space, word) for word in words]
    first_word = len(tokens)
    tokens += words + [space + word for word in words]
    return tokens, merges, words, first_word


def tokenizer(tokens, merges):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": tokens.index(content),
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for content in SPECIALS
        ],
        "pre_tokenizer": byte_level | {"use_regex": True},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: place for place, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def weights(config, first_word):
    mx.random.seed(0)
    model = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    made = {
        name: value if "norm" in name else WEIGHT_SCALE * mx.random.normal(value.shape)
        for name, value in tree_flatten(model.parameters())
    }
    # What is no word has a logit of nothing and is never the likeliest: each answer is as many whole
    # words as were asked for, and its text goes out with its token.
    embedding = made["model.embed_tokens.weight"]
    is_word = mx.arange(embedding.shape[0]) >= first_word
    made["model.embed_tokens.weight"] = embedding * is_word[:, None]
    return made


def make(folder, size):
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_act": "silu",
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "eos_token_id": SPECIALS.index(END),
        "torch_dtype": "float32",
    } | size
    tokens, merges, words, first_word = vocabulary(size["vocab_size"])
    made = weights(config, first_word)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    texts = {
        "config.json": config,
        "tokenizer.json": tokenizer(tokens, merges),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
        "words.json": words,
    }
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value))
    mx.save_safetensors(str(folder / "model.safetensors"), made, metadata={"format": "mlx"})
    millions = sum(value.size for value in made.values()) / 1e6
    print(f"{folder.name}: {millions:.2f} million parameters", flush=True)


def main():
    for name, size in SIZES.items():
        make(Path(sys.argv[1]) / name, size)


if __name__ == "__main__":
    main()

"""Makes small models of every family, and what mlx-lm says of them.

    python engine/tests/families/make.py [--long] OUT [NAME ...]

Needs mlx-lm and mlx (on Linux mlx[cpu]); `cargo xtask test families` sees to that. Each model gets
random weights of the scale of a trained one, is written as a Hugging Face folder, is loaded by
mlx-lm like any other, and is asked to go on after prompts of several lengths.
`engine/tests/families.rs` asks the engine the same and compares.

A quantised model is also held against the one it was made of, so that the error of quantising is
known beside the error of computing.

Seeds. Each model's weights and prompts come of the first seed, counted from zero, whose greedy answers
have DISTINCT_LEAST different tokens: an answer that says one thing over and over would prove little. No
seed is passed over because two tokens are nearly as likely; the margins are written down, and
`families.rs` says which tokens they make comparable.

With `--long`, each family without quantising has a window of 1,024 tokens where it has one, and prompts
over a block, a chunk and that window: what takes too long for every day.

Folders named `-published` hold weights under the names and in the shapes in which a family's makers
publish them, before anybody converted them for MLX.
"""

import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes, load_model, quantize_model

# mlx-lm hands on an argument that mlx of the same number does not know yet. It is always None here.
gather_qmm = mx.gather_qmm
mx.gather_qmm = lambda *args, global_scale=None, **more: gather_qmm(*args, **more)

# Longer than the window of the models that have one, shorter, and a single token.
PROMPT_LENGTHS = (1, 11, 37)
# Over a block of the cache, a chunk of prefill and the window: of each family once, every day.
CHUNK_LENGTH = 600
# With `--long`, over a block and a chunk, over the window, and several times as long as all of them.
LONG_LENGTHS = (600, 1500, 6000)
LONG_WINDOW = 1024
LONG_CONTEXT = 8192
# mlx-lm runs a prompt in such pieces.
PIECE = 512
ANSWER_TOKENS = 64
VOCABULARY = 512
HIDDEN = 256
# See "Seeds" above.
DISTINCT_LEAST = 12
SEEDS = 60


def decoder(**more):
    """What the families' configs have in common."""
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    } | more


GEMMA4 = decoder(
    model_type="gemma4_text",
    hidden_activation="gelu_pytorch_tanh",
    num_hidden_layers=6,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
    sliding_window=16,
    global_head_dim=64,
    num_key_value_heads=1,
    tie_word_embeddings=True,
    rope_parameters={
        "full_attention": {
            "partial_rotary_factor": 0.25,
            "rope_theta": 1000000.0,
            "rope_type": "proportional",
        },
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    final_logit_softcapping=30.0,
)
QWEN35 = decoder(
    model_type="qwen3_5_text",
    num_hidden_layers=4,
    full_attention_interval=2,
    layer_types=["linear_attention", "full_attention"] * 2,
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=32,
    linear_value_head_dim=32,
    linear_conv_kernel_dim=4,
    rope_parameters={
        "rope_type": "default",
        "mrope_section": [1, 1, 2],
        "rope_theta": 100000,
        "partial_rotary_factor": 0.25,
    },
)
QWEN3_MOE = decoder(
    model_type="qwen3_moe",
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=128,
    mlp_only_layers=[1],
    decoder_sparse_step=1,
    norm_topk_prob=True,
)
GPT_OSS = decoder(
    model_type="gpt_oss",
    layer_types=["sliding_attention", "full_attention"] * 2,
    sliding_window=16,
    num_local_experts=4,
    num_experts_per_tok=2,
    intermediate_size=256,
    rope_theta=150000,
    rope_scaling={
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        # The makers' file says `truncate: false`, which mlx-lm does not read; the engine does.
        "original_max_position_embeddings": 64,
    },
)


def nested(config, model_type):
    """The text part inside a model that also sees pictures."""
    outer = {"model_type": model_type, "vision_config": {"hidden_size": 8}}
    kept = {key: config[key] for key in ("tie_word_embeddings", "vocab_size")}
    return outer | kept | {"text_config": config}


CONFIGS = {
    "llama": decoder(
        model_type="llama",
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=16,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": decoder(
        model_type="mistral", rope_scaling={"type": "linear", "factor": 4.0}, mlp_bias=True
    ),
    "llama_traditional": decoder(model_type="llama", rope_traditional=True, attention_bias=True),
    "llama_longrope": decoder(
        model_type="llama",
        rope_scaling={
            "rope_type": "longrope",
            "short_factor": [1.0] * 16,
            "long_factor": [1.0 + 0.25 * pair for pair in range(16)],
            "original_max_position_embeddings": 256,
        },
    ),
    "qwen2_dynamic": decoder(
        model_type="qwen2",
        head_dim=HIDDEN // 4,
        rope_traditional=True,
        rope_scaling={"type": "dynamic", "factor": 4.0},
    ),
    # mlx-lm takes no other width of a head than this for the family.
    "qwen2": decoder(model_type="qwen2", tie_word_embeddings=True, head_dim=HIDDEN // 4),
    "qwen3": decoder(model_type="qwen3", tie_word_embeddings=True, head_dim=64),
    "qwen3_moe": QWEN3_MOE,
    "qwen3_5": nested(QWEN35, "qwen3_5"),
    "qwen3_5_moe": nested(
        QWEN35
        | {
            "model_type": "qwen3_5_moe_text",
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 128,
            "shared_expert_intermediate_size": 128,
        },
        "qwen3_5_moe",
    ),
    "gemma3_text": decoder(
        model_type="gemma3_text",
        hidden_activation="gelu_pytorch_tanh",
        num_hidden_layers=6,
        sliding_window=16,
        sliding_window_pattern=3,
        query_pre_attn_scalar=24,
        rope_theta=1000000.0,
        rope_local_base_freq=10000.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    ),
    "gemma3": nested(
        decoder(
            model_type="gemma3_text",
            hidden_activation="gelu_pytorch_tanh",
            num_hidden_layers=4,
            sliding_window=16,
            sliding_window_pattern=2,
            query_pre_attn_scalar=32,
            tie_word_embeddings=True,
        ),
        "gemma3",
    ),
    "gemma4_text": GEMMA4
    | {
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": VOCABULARY,
        "use_double_wide_mlp": True,
    },
    "gemma4": nested(
        GEMMA4
        | {
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "num_key_value_heads": 2,
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 2,
            "moe_intermediate_size": 128,
        },
        "gemma4",
    ),
    "gpt_oss": GPT_OSS,
}

def mixed(path, _):
    """Other bits for each part, as the most downloaded builds have it."""
    parts = {"q_proj": 3, "k_proj": 5, "v_proj": 6, "o_proj": 4, "gate_proj": 5, "down_proj": 8}
    bits = parts.get(path.split(".")[-1])
    return {"group_size": 64, "bits": bits} if bits else True


# Name of the folder: the model it is made of, and how mlx-lm quantises it.
QUANTISED = {
    "llama-8bit": ("llama", {"group_size": 32, "bits": 8}),
    "qwen3-4bit": ("qwen3", {"group_size": 64, "bits": 4}),
    "qwen3-6bit-128": ("qwen3", {"group_size": 128, "bits": 6}),
    "qwen3-2bit": ("qwen3", {"group_size": 32, "bits": 2}),
    "qwen3-3bit": ("qwen3", {"group_size": 64, "bits": 3}),
    "llama-5bit": ("llama", {"group_size": 64, "bits": 5}),
    "qwen3-3to8bit": ("qwen3", {"group_size": 64, "bits": 4, "quant_predicate": mixed}),
    "qwen3-nvfp4": ("qwen3", {"group_size": 16, "bits": 4, "mode": "nvfp4"}),
    "llama-mxfp8": ("llama", {"group_size": 32, "bits": 8, "mode": "mxfp8"}),
    "qwen3_moe-5bit": ("qwen3_moe", {"group_size": 32, "bits": 5}),
    "qwen3_moe-nvfp4": ("qwen3_moe", {"group_size": 16, "bits": 4, "mode": "nvfp4"}),
    "qwen3_moe-4bit": ("qwen3_moe", {"group_size": 64, "bits": 4}),
    "qwen3_5-4bit": ("qwen3_5", {"group_size": 32, "bits": 4}),
    "gemma3-4bit": ("gemma3", {"group_size": 64, "bits": 4}),
    "gemma4-8bit": ("gemma4", {"group_size": 64, "bits": 8}),
    "gpt_oss-mxfp4": ("gpt_oss", "mxfp4"),
}


def random_weight(name, shape):
    """Of the scale of a trained model's, so that states neither vanish nor blow up."""
    last = name.split(".")[-1]
    normal = mx.random.normal(shape)
    if last in ("bias", "sinks", "dt_bias"):
        return 0.3 * normal
    if last == "A_log":
        return mx.log(mx.random.uniform(0.5, 8.0, shape))
    if last in ("layer_scalar", "scale", "per_expert_scale"):
        return 1.0 + 0.1 * normal
    if "norm" in name:
        return 0.2 * normal
    if "embed_tokens_per_layer" in name or "conv1d" in name:
        return 0.5 * normal
    if "lm_head" in name or "embed_tokens" in name:
        return 4.0 * normal / shape[-1] ** 0.5
    return 1.5 * normal / shape[-1] ** 0.5


def bare_model(config):
    model_class, args_class = _get_classes(config)
    # Some argument classes change what they are given.
    return model_class(args_class.from_dict(json.loads(json.dumps(config))))


def fresh_model(config):
    model = bare_model(config)
    weights = []
    for name, value in tree_flatten(model.parameters()):
        weight = random_weight(name, value.shape)
        # Gemma 3 stores the difference to one; the others the weight itself.
        if name.split(".")[-1] == "weight" and "norm" in name.split(".")[-2]:
            weight = weight if "gemma3" in config["model_type"] else 1.0 + weight
        if "gemma" in config["model_type"] and config["tie_word_embeddings"]:
            # The embedding is scaled up and serves as the head: at the scale above, every token
            # would be followed by itself.
            weight = weight / 16.0 if "embed_tokens.weight" in name else weight
            weight = weight * 16.0 if name.endswith("model.norm.weight") else weight
        weights.append((name, weight.astype(mx.float32)))
    if config["tie_word_embeddings"] and hasattr(model, "language_model"):
        # Gemma 3 finds out from the files whether it has a head of its own.
        weights = [(name, weight) for name, weight in weights if "lm_head" not in name]
    model.update(tree_unflatten(weights))
    mx.eval(model.parameters())
    return model


# A token is a word of its own, so that a server's prompt and answer are exactly these tokens. None
# ends an answer.
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {
        "type": "WordLevel",
        "vocab": {f"t{token}": token for token in range(VOCABULARY)},
        "unk_token": "t0",
    },
}
TOKENIZER_CONFIG = {"chat_template": "{{ messages[0].content }}"}


def write(folder, config, weights):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def go_on(model, prompt):
    """Prefill logits, the greedy answer, by how much each of its tokens was likelier than the next
    best, and the logits after it."""
    cache = make_prompt_cache(model)
    for start in range(0, len(prompt), PIECE):
        logits = model(mx.array([prompt[start : start + PIECE]]), cache=cache)[0, -1]
        mx.eval(logits)
    first = logits
    answer, margins = [], []
    for _ in range(ANSWER_TOKENS):
        second, best = mx.sort(logits)[-2:].tolist()
        margins.append(best - second)
        answer.append(int(mx.argmax(logits).item()))
        logits = model(mx.array([[answer[-1]]]), cache=cache)[0, -1]
    return first, answer, margins, logits


def expected(model, original, lengths):
    """What mlx-lm's model says, or nothing when an answer says too little.

    `original` is the model before its weights were quantised, if they were.
    """
    rows = []
    for length in lengths:
        prompt = mx.random.randint(2, VOCABULARY, (length,)).tolist()
        first, answer, margins, last = go_on(model, prompt)
        if len(set(answer)) < DISTINCT_LEAST:
            return None
        row = {
            "prompt": prompt,
            "prefill_logits": first.tolist(),
            "answer": answer,
            "margins": margins,
            "last_logits": last.tolist(),
        }
        if original is not None:
            row["original_logits"] = original(mx.array([prompt + answer]))[0, -1].tolist()
        rows.append(row)
    return rows


def make(folder, write_model, lengths):
    """Takes the first seed whose answers say enough."""
    for seed in range(SEEDS):
        mx.random.seed(seed)
        original = write_model(folder)
        model, _ = load_model(folder, lazy=False)
        rows = expected(model, original, lengths)
        if rows is not None:
            counted = tree_flatten((original or model).parameters())
            millions = sum(value.size for _, value in counted) / 1e6
            (folder / "expected.json").write_text(
                json.dumps({"seed": seed, "millions": millions, "rows": rows})
            )
            print(f"{folder.name}: {millions:.1f} million parameters, seed {seed}", flush=True)
            return
    sys.exit(f"{folder.name}: no seed of {SEEDS} gives answers of {DISTINCT_LEAST} tokens")


def write_plain(config):
    def run(folder):
        write(folder, config, dict(tree_flatten(fresh_model(config).parameters())))

    return run


def quantise_experts(model):
    nn.quantize(
        model,
        group_size=32,
        bits=4,
        mode="mxfp4",
        class_predicate=lambda path, _: "experts." in path and path.endswith("_proj"),
    )


def twin(config, model):
    """Another model of the same weights, which stays as it is when the first is quantised."""
    other = bare_model(config)
    other.update(model.parameters())
    return other


def write_quantised(config, how):
    def run(folder):
        model = fresh_model(config)
        original = twin(config, model)
        if how == "mxfp4":
            quantise_experts(model)
            kept = dict(config)
            kept["quantization"] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
        else:
            # Copies, because mlx-lm notes each layer's quantisation in the config it is given.
            model, kept = quantize_model(model, json.loads(json.dumps(config)), **how)
        write(folder, kept, dict(tree_flatten(model.parameters())))
        return original

    return run


QWEN35_SHIFTED = (
    ".input_layernorm.weight",
    ".post_attention_layernorm.weight",
    "model.norm.weight",
    ".q_norm.weight",
    ".k_norm.weight",
)


def apart(name, stack):
    """A stack of experts as one tensor each."""
    for index in range(stack.shape[0]):
        yield name.replace("switch_mlp", f"experts.{index}"), stack[index]


def gate_up(weights, old, new):
    """Gate and up of all experts in one tensor, down in another."""
    for name in [name for name in weights if f".{old}.gate_proj.weight" in name]:
        place = name.removesuffix(f"{old}.gate_proj.weight")
        halves = [weights.pop(f"{place}{old}.{part}_proj.weight") for part in ("gate", "up")]
        weights[f"{place}{new}.gate_up_proj"] = mx.concatenate(halves, axis=-2)
        weights[f"{place}{new}.down_proj"] = weights.pop(f"{place}{old}.down_proj.weight")


def published_qwen3_moe(weights):
    pairs = list(weights.items())
    return dict(
        part
        for name, value in pairs
        for part in (apart(name, value) if "switch_mlp" in name else [(name, value)])
    )


def published_qwen3_5(weights):
    renamed = {
        "mtp.fc.weight": mx.zeros((4, 4)),
        "language_model.mtp.fc.weight": mx.zeros((4, 4)),
        "model.visual.patch.bias": mx.zeros((4,)),
    }
    for name, value in weights.items():
        if name.endswith(QWEN35_SHIFTED):
            value = value - 1.0
        if name.endswith("conv1d.weight"):
            value = value.moveaxis(1, 2)
        name = name.replace("language_model.model.", "model.language_model.")
        renamed[name.replace("language_model.lm_head", "lm_head")] = value
    gate_up(renamed, "switch_mlp", "experts")
    return renamed


def published_gemma3(weights):
    return weights | {
        "vision_tower.patch.bias": mx.zeros((4,)),
        "multi_modal_projector.norm.weight": mx.zeros((4,)),
    }


def published_gemma4(weights):
    renamed = {"model.vision_tower.patch.bias": mx.zeros((4,))}
    for name, value in weights.items():
        renamed[name.replace("language_model.model.", "model.language_model.")] = value
    gate_up(renamed, "experts.switch_glu", "experts")
    return renamed


def published_gemma4_text(weights):
    # Layers that see an earlier layer's keys and values have projections all the same.
    extra = {
        f"model.layers.{layer}.self_attn.{part}_proj.weight": mx.zeros((32, HIDDEN))
        for layer in (4, 5)
        for part in ("k", "v")
    }
    return weights | extra


def published_gpt_oss(weights):
    def mixed(gate, up):
        return mx.stack([gate, up], axis=2).flatten(1, 2)

    def blocks(packed):
        return packed.view(mx.uint8).reshape(*packed.shape[:2], -1, 16)

    published = {name: value for name, value in weights.items() if ".experts." not in name}
    for layer in range(GPT_OSS["num_hidden_layers"]):
        at = f"model.layers.{layer}.mlp.experts"
        gate, up = f"{at}.gate_proj", f"{at}.up_proj"
        for part, shape in (("weight", blocks), ("scales", mx.array), ("bias", mx.array)):
            both = shape(mixed(weights[f"{gate}.{part}"], weights[f"{up}.{part}"]))
            down = shape(weights[f"{at}.down_proj.{part}"])
            ending = {"weight": "blocks"}.get(part, part)
            published[f"{at}.gate_up_proj_{ending}"] = both
            published[f"{at}.down_proj_{ending}"] = down
    return published


PUBLISHED = {
    "qwen3_moe": published_qwen3_moe,
    "qwen3_5": published_qwen3_5,
    "qwen3_5_moe": published_qwen3_5,
    "gemma3": published_gemma3,
    "gemma4": published_gemma4,
    "gemma4_text": published_gemma4_text,
    "gpt_oss": published_gpt_oss,
}


def write_published(config, convert):
    def run(folder):
        model, kept, original = fresh_model(config), dict(config), None
        if convert is published_gpt_oss:
            original = twin(config, model)
            quantise_experts(model)
            kept["quantization_config"] = {"quant_method": "mxfp4"}
        write(folder, kept, convert(dict(tree_flatten(model.parameters()))))
        return original

    return run


def writers():
    found = {name: write_plain(config) for name, config in CONFIGS.items()}
    for name, (base, how) in QUANTISED.items():
        found[name] = write_quantised(CONFIGS[base], how)
    for name, convert in PUBLISHED.items():
        found[f"{name}-published"] = write_published(CONFIGS[name], convert)
    return found


def long(config):
    """The same with a wider window and a longer context, in the text part if there is one."""
    changed = {"max_position_embeddings": LONG_CONTEXT}
    if "sliding_window" in config:
        changed["sliding_window"] = LONG_WINDOW
    if "text_config" in config:
        return config | {"text_config": long(config["text_config"])}
    return config | changed


def make_named(out, name, is_long):
    if is_long:
        make(out / name, write_plain(long(CONFIGS[name])), LONG_LENGTHS)
    elif name in CONFIGS:
        make(out / name, writers()[name], (*PROMPT_LENGTHS, CHUNK_LENGTH))
    else:
        make(out / name, writers()[name], PROMPT_LENGTHS)


def kernels_of_its_own(folder):
    """MLX compiles kernels into the folder for temporary files, and loads what it finds there. Two processes
    that compile one at the same time load half of it."""
    os.environ["TMPDIR"] = tempfile.mkdtemp(dir=folder)


def main():
    words = [word for word in sys.argv[1:] if word != "--long"]
    is_long = len(words) < len(sys.argv) - 1
    out, chosen = Path(words[0]), words[1:]
    names = chosen or list(CONFIGS if is_long else writers())
    # Most of the time is Python's own. Processes that are forked would share MLX's threads.
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            os.cpu_count(), get_context("spawn"), kernels_of_its_own, (folder,)
        ) as pool,
    ):
        for made in [pool.submit(make_named, out, name, is_long) for name in names]:
            made.result()


if __name__ == "__main__":
    main()

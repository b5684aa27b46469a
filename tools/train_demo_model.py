#!/usr/bin/env python3
"""Train the demo model of `bigsmall`: a byte-level language model of the Llama architecture, on text that ships with Python.

The text is the language reference that `help()` shows (`pydoc_data.topics`) and the documentation strings of the standard
library of the Python that runs this script. Training is in F32 on the CPU; the weights are rounded to BF16 at the end and
saved as safetensors under the tensor names of transformers' `LlamaForCausalLM`, with its `config.json` and tokenizer beside them.

Needs Python 3.11+, torch 2.4+ and safetensors. The same seed, thread count, Python, torch build and processor give the
same file; another of any of these gives a different one of the same quality.

    python tools/train_demo_model.py --steps 50 --out target/try/demo.safetensors      # a minute, to see it work
    python tools/train_demo_model.py --evaluate python/bigsmall/data/demo.safetensors  # the figures of a saved model
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import platform
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "python" / "bigsmall" / "data" / "demo.safetensors"

# Begins every document. A NUL never occurs in the text, so 256 token ids are enough: a token is a byte.
BOS = 0

# One document in this many is held out.
HELD_OUT_ONE_IN = 16


# --- text ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """The text as two 1-D uint8 tensors of bytes, documents packed one after another, each begun by `BOS`."""

    train: Tensor
    held_out: Tensor
    sha256: str


def read_corpus() -> Corpus:
    """Collect the documents and split them by a hash of their name, so the split does not move when other documents change."""
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    seen: set[bytes] = set()
    for name, text in [*reference_topics(), *module_documentation(seen)]:
        is_held_out = hashlib.sha256(name.encode()).digest()[0] % HELD_OUT_ONE_IN == 0
        parts[is_held_out].append(bytes([BOS]) + text.replace("\0", "").encode())
    train, held_out = b"".join(parts[False]), b"".join(parts[True])
    digest = hashlib.sha256(train + held_out).hexdigest()
    return Corpus(torch.frombuffer(bytearray(train), dtype=torch.uint8), torch.frombuffer(bytearray(held_out), dtype=torch.uint8), digest)


def reference_topics() -> Iterator[tuple[str, str]]:
    """The pages of the language reference, as (name, text)."""
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"topic {name}", f"{name}\n\n{text.strip()}\n"


def module_documentation(seen: set[bytes]) -> Iterator[tuple[str, str]]:
    """One document per top-level module of the standard library: a heading and the docstring of everything defined in it.

    A package is one document, and a docstring whose digest is in `seen` is left out: modules that share text would
    otherwise put the same sentences on both sides of the split.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names):
        package = stdlib / name
        files = sorted(package.rglob("*.py")) if package.is_dir() else [stdlib / f"{name}.py"]
        entries: list[str] = []
        for file in files:
            if not file.is_file() or {"test", "tests"} & set(file.relative_to(stdlib).parts):
                continue
            module = ".".join(file.relative_to(stdlib).with_suffix("").parts).removesuffix(".__init__")
            for heading, docstring in docstrings(ast.parse(file.read_bytes()), module):
                digest = hashlib.sha256(docstring.encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    entries.append(f"{heading}\n\n{docstring.strip()}\n")
        if entries:
            yield f"module {name}", "\n\n".join(entries)


def docstrings(node: ast.AST, qualified_name: str, heading: str = "") -> Iterator[tuple[str, str]]:
    """Every (heading, docstring) in `node`, in source order; a function's heading is its qualified name and parameters."""
    docstring = ast.get_docstring(node) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else None
    if docstring:
        yield heading or qualified_name, docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from docstrings(child, f"{qualified_name}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            child_name = f"{qualified_name}.{child.name}"
            yield from docstrings(child, child_name, f"{child_name}({ast.unparse(child.args)})")
        else:
            yield from docstrings(child, qualified_name)


def bigram_bits_per_byte(corpus: Corpus) -> float:
    """What a table of byte pairs counted on the training text, add-one smoothed, needs for the held-out text."""
    train, held_out = corpus.train.long(), corpus.held_out.long()
    counts = torch.bincount(train[:-1] * 256 + train[1:], minlength=256 * 256).reshape(256, 256).double() + 1
    log_p = (counts / counts.sum(1, keepdim=True)).log2()
    return -log_p[held_out[:-1], held_out[1:]].mean().item()


# --- model --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of the network, under the names that transformers' `config.json` gives them."""

    vocab_size: int = 256
    hidden_size: int = 192
    intermediate_size: int = 416
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    max_position_embeddings: int = 256
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def to_json(self, weights_name: str) -> str:
        """`config.json` for weights stored beside it in the file `weights_name`."""
        fixed = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "transformers_weights": weights_name,
            "torch_dtype": "bfloat16",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": BOS,
            "eos_token_id": BOS,
        }
        return json.dumps(fixed | asdict(self), indent=2) + "\n"


class RmsNorm(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads share one key-value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.queries_per_key = config.num_attention_heads // config.num_key_value_heads
        q_size, kv_size = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, q_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(q_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (proj(x).view(batch, length, -1, self.head_dim).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.queries_per_key, dim=1) for t in (k, v))
        out = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate element i of the last axis with element i + half of it, as transformers pairs them (not i with i + 1)."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = RmsNorm(config)
        self.post_attention_layernorm = RmsNorm(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config)
        frequency = config.rope_theta ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        angle = torch.outer(torch.arange(config.max_position_embeddings).float(), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Llama(nn.Module):
    """int64 tokens (batch, length) to F32 logits (batch, length, 256). Module names make the tensor names of transformers."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # Both projections that add to the residual stream start smaller, or its variance would grow with every layer.
        residual_scale = 1 / math.sqrt(2 * config.num_hidden_layers)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = residual_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(weight, std=config.initializer_range * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.model(tokens))

    def bits_per_byte(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean of -log2 p(target), a scalar; `inputs` and `targets` are int64 (batch, length)."""
        return cross_entropy(self(inputs).flatten(0, 1), targets.flatten()) / math.log(2)


# --- training -----------------------------------------------------------------------------------------------------------


def train(model: Llama, corpus: Corpus, args: argparse.Namespace) -> None:
    """AdamW; the learning rate rises linearly, then falls to zero along a cosine."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95))
    warmup = max(1, min(100, args.steps // 10))
    crops = torch.Generator().manual_seed(args.seed)
    length = model.config.max_position_embeddings
    started, recent = time.monotonic(), []
    for step in range(args.steps):
        progress = max(0.0, (step - warmup) / max(1, args.steps - warmup))
        rate = args.learning_rate * min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(corpus.train) - length, (args.batch_size, 1), generator=crops)
        window = corpus.train[starts + torch.arange(length + 1)].long()
        loss = model.bits_per_byte(window[:, :-1], window[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % args.report_every == 0 or step + 1 == args.steps:
            seconds, mean = time.monotonic() - started, sum(recent) / len(recent)
            held_out = held_out_bits_per_byte(model, corpus)
            print(f"step {step + 1:6}  train {mean:.4f}  held out {held_out:.4f} bits/byte  {seconds:6.0f} s", flush=True)
            recent.clear()


@torch.no_grad()
def held_out_bits_per_byte(model: Llama, corpus: Corpus) -> float:
    """Over the whole held-out text, cut into windows of the context length; a byte sees only what precedes it in its window."""
    length = model.config.max_position_embeddings
    n_windows = (len(corpus.held_out) - 1) // length
    inputs = corpus.held_out[: n_windows * length].long().view(n_windows, length)
    targets = corpus.held_out[1 : n_windows * length + 1].long().view(n_windows, length)
    batches = zip(inputs.split(32), targets.split(32), strict=True)
    return sum(model.bits_per_byte(x, y).item() * len(x) for x, y in batches) / n_windows


@torch.no_grad()
def generate(model: Llama, prompt: str, n_bytes: int, temperature: float, seed: int) -> str:
    """Continue `prompt` by `n_bytes` sampled bytes; the model sees at most its context length of the latest ones."""
    tokens = torch.tensor([[BOS, *prompt.encode()]])
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_bytes):
        logits = model(tokens[:, -model.config.max_position_embeddings :])[0, -1]
        tokens = torch.cat((tokens, torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[None]), dim=1)
    return bytes(tokens[0, 1:].tolist()).replace(bytes([BOS]), b"\n").decode(errors="replace")


def save(model: Llama, path: Path) -> None:
    """Write the BF16 weights to `path`, and configuration and tokenizer beside it, each under its final name only once it is whole."""
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(to_safetensors(weights, metadata={"format": "pt"}))
    partial.replace(path)
    path.with_name("config.json").write_text(model.config.to_json(path.name))
    for name, content in tokenizer_files().items():
        path.with_name(name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def tokenizer_files() -> dict[str, object]:
    """The tokenizer for transformers: a token is a byte, `BOS` comes first. Such vocabularies name each byte by a printable character."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    bos = {"id": BOS, "content": names[BOS], "special": True}
    bos |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [bos],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": names[BOS], "type_id": 0}}, sequence],
            "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {names[BOS]: {"id": names[BOS], "ids": [BOS], "tokens": [names[BOS]]}},
        },
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {names[byte]: byte for byte in range(256)}, "merges": []},
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": names[BOS], "eos_token": names[BOS], "model_max_length": 256}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}


def report(path: Path, corpus: Corpus, seed: int) -> None:
    """Print what the saved weights are worth: BF16 values, computed with in F32. Exits with a message where `path` is another model."""
    model = Llama(LlamaConfig())
    try:
        weights = load_file(path)
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        sys.exit(f"error: {path} does not hold this model: {error}")
    n_bytes, n_parameters = path.stat().st_size, sum(t.numel() for t in weights.values())
    print(f"{path}: {n_parameters} parameters, {n_bytes} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    print(f"held out, BF16 weights: {held_out_bits_per_byte(model, corpus):.4f} bits/byte (byte pairs: {bigram_bits_per_byte(corpus):.4f})")
    print("--- sample ---\n" + generate(model, "The ", n_bytes=600, temperature=0.7, seed=seed))


def parse_arguments() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the safetensors file to write (default: the one in the package)")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, training windows and sample (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="windows of 256 bytes per step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="its peak (default: %(default)s)")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of the 2-D weights (default: %(default)s)")
    parser.add_argument("--report-every", type=int, default=250, metavar="STEPS", help="between printed losses (default: %(default)s)")
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="train nothing: print the figures and a sample of a saved model")
    args = parser.parse_args()
    for name in ("steps", "threads", "batch_size", "report_every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not (0 < args.learning_rate < math.inf and 0 <= args.weight_decay < math.inf):
        parser.error("--learning-rate must be above 0 and --weight-decay not below it, both finite")
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    try:
        if args.evaluate is None:
            # First of all, so that a folder that cannot be made costs no training.
            args.out.parent.mkdir(parents=True, exist_ok=True)
        corpus = read_corpus()
        n_train, n_held_out = len(corpus.train), len(corpus.held_out)
        print(f"text of Python {platform.python_version()}: {n_train} training bytes, {n_held_out} held out, sha256 {corpus.sha256}")
        if args.evaluate is None:
            model = Llama(LlamaConfig())
            train(model, corpus, args)
            save(model, args.out)
        report(args.evaluate or args.out, corpus, args.seed)
    except OSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""A transformers cache whose middle is coded."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    DynamicCache,
    DynamicLayer,
    get_layer_types_and_kwargs,
)

from .basis import KVBasis
from .codec import CodedChunk, KVCodec
from .plan import KVPlan
from .recorder import Recorder
from .states import Pair, check_pair, layer_pairs

DECODED, CODED = "decoded", "coded"
RESIDENT = (DECODED, CODED)


@dataclass(frozen=True)
class Held:
    """A chunk as one layer holds it: which of its rows are the rows of the batch now."""

    chunk: CodedChunk
    rows: tuple[int, ...]


class TransformCodedLayer(DynamicLayer):
    """The keys and values of one layer: first tokens (exact), coded chunks, last tokens (exact), in this order.

    `keys` and `values` are the last tokens. What attention gets of coded tokens is what decoding gives.
    """

    is_croppable = True
    supports_early_init = False

    def __init__(self, codec: KVCodec, layer: int, sink: int, resident: str) -> None:
        super().__init__()
        self.codec, self.layer, self.n_sink, self.resident = codec, layer, sink, resident
        self.sinks: Pair | None = None
        self.chunks: list[Held] = []
        self.decoded: Pair | None = None
        """Sinks and chunks as tensors, while they are kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "decoded": None}

    @property
    def n_coded(self) -> int:
        return sum(held.chunk.n_tokens for held in self.chunks)

    @property
    def n_sunk(self) -> int:
        return 0 if self.sinks is None else int(self.sinks[0].shape[2])

    @property
    def n_tail(self) -> int:
        return int(self.keys.shape[2]) if self.is_initialized and self.keys is not None and self.keys.ndim == 4 else 0

    def get_seq_length(self) -> int:
        return self.n_sunk + self.n_coded + self.n_tail

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        check_pair(key_states, value_states, self.layer)
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Append tokens; all keys and values, those of this call as they came."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._append(key_states, value_states)
        return self.all_states()

    def _append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        if self.n_sunk < self.n_sink and not self.chunks and self.n_tail == 0:
            n = self.n_sink - self.n_sunk
            first = (keys[:, :, :n], values[:, :, :n])
            self.sinks = first if self.sinks is None else _joined([self.sinks, first])
            self.sinks = (self.sinks[0].contiguous(), self.sinks[1].contiguous())
            self.decoded = None
            keys, values = keys[:, :, n:], values[:, :, n:]
        self.keys, self.values = _joined([(self.keys, self.values), (keys, values)]) if self.n_tail else (keys, values)

    def all_states(self) -> Pair:
        """Keys and values of all tokens, `[B, H, T, D]`."""
        before = self.before_tail()
        parts = [part for part in (before, (self.keys, self.values)) if part is not None and part[0].shape[2]]
        return _joined(parts) if parts else (self.keys, self.values)

    def before_tail(self) -> Pair | None:
        """Keys and values of the sinks and the coded tokens."""
        if not self.chunks:
            return self.sinks
        if self.decoded is not None:
            return self.decoded
        parts = [] if self.sinks is None else [self.sinks]
        decoded = _joined(parts + [self._decode(held) for held in self.chunks])
        if self.resident == DECODED:
            self.decoded = decoded
        return decoded

    def _decode(self, held: Held) -> Pair:
        heads, head_dim = self.keys.shape[1], self.keys.shape[3]
        shapes = [(heads, head_dim)] * len(held.chunk.layers)
        [pair] = self.codec.decode(held.chunk, rows=held.rows, device=self.device, dtype=self.dtype, shapes=shapes, only=self.layer)
        return pair

    def take(self, n: int) -> Pair:
        """The first `n` tokens of the tail, which are to be coded."""
        return self.keys[:, :, :n], self.values[:, :, :n]

    def settle(self, chunk: CodedChunk) -> None:
        """Puts a chunk in the place of the first tokens of the tail."""
        n = chunk.n_tokens
        held = Held(chunk, tuple(range(len(chunk.rows))))
        before = self.before_tail() if self.resident == DECODED else None
        self.chunks.append(held)
        if self.resident == DECODED:
            parts = [part for part in (before, self._decode(held)) if part is not None]
            self.decoded = _joined(parts)
        # Copied, so that the memory of what was coded is free.
        self.keys, self.values = self.keys[:, :, n:].clone(), self.values[:, :, n:].clone()

    def release(self) -> None:
        """Drops decoded copies."""
        self.decoded = None

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last tokens: `tokens_to_remove` ≤ 0 of them. A chunk that is cut comes back to the tail as decoded."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes how many tokens to remove as a negative number, not {tokens_to_remove}")
        n = min(-tokens_to_remove, self.get_seq_length())
        while n > self.n_tail and self.chunks:
            held = self.chunks.pop()
            self.keys, self.values = _joined([self._decode(held), (self.keys, self.values)])
            self.decoded = None
        if n and self.n_tail:
            cut = min(n, self.n_tail)
            self.keys, self.values = self.keys[:, :, : self.n_tail - cut], self.values[:, :, : self.values.shape[2] - cut]
            n -= cut
        if n and self.sinks is not None:
            kept = self.n_sunk - n
            self.sinks = (self.sinks[0][:, :, :kept], self.sinks[1][:, :, :kept]) if kept > 0 else None
            self.decoded = None

    def reset(self) -> None:
        """Forgets all tokens."""
        self.keys = self.values = None  # type: ignore[assignment]
        self.is_initialized = False
        self.sinks, self.chunks, self.decoded = None, [], None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._select(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.get_seq_length():
            n_rows = self.keys.shape[0]
            self._select(torch.arange(n_rows, device=indices.device)[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.get_seq_length():
            self._select(torch.arange(self.keys.shape[0]).repeat_interleave(repeats))

    def _select(self, rows: torch.Tensor) -> None:
        if not self.get_seq_length():
            return
        here = rows.to(self.device)
        self.keys, self.values = self.keys.index_select(0, here), self.values.index_select(0, here)
        if self.sinks is not None:
            self.sinks = (self.sinks[0].index_select(0, here), self.sinks[1].index_select(0, here))
        if self.decoded is not None:
            self.decoded = (self.decoded[0].index_select(0, here), self.decoded[1].index_select(0, here))
        chosen = rows.tolist()
        self.chunks = [Held(held.chunk, tuple(held.rows[row] for row in chosen)) for held in self.chunks]

    def offload(self) -> None:
        """Drop decoded copies: chunks are in host memory as it is."""
        self.release()

    def prefetch(self) -> None:
        """Make decoded copies, if they are kept."""
        self.before_tail()


class TransformCodedCache(Cache):
    """A drop-in for transformers' `DynamicCache`, with all but the first and last tokens coded by a plan.

    `config`: the model's. `basis` and `plan`: see `KVCalibrator` and `KVPlan`; the lossless plan needs no basis. `resident` "decoded" keeps
    the decoded form of coded tokens
    while generating (fast), "coded" decodes each layer when it is needed (small). The first `sink` and the last `window` tokens stay exact;
    `chunk_tokens` are coded at a time, once, and never again.
    `recorder` takes the time of each stage. Layers that are not full attention are those of `DynamicCache`. ValueError for a plan of
    another basis or model, and for latent attention.
    """

    def __init__(
        self,
        config: Any,
        basis: KVBasis | None,
        plan: KVPlan,
        *,
        resident: str = DECODED,
        sink: int = 4,
        window: int = 128,
        chunk_tokens: int = 256,
        recorder: Recorder | None = None,
        backend: str = "auto",
    ) -> None:
        if resident not in RESIDENT:
            raise ValueError(f"no residence {resident!r}: there are {', '.join(RESIDENT)}")
        if sink < 0 or window < 0 or chunk_tokens < 1:
            raise ValueError("sink and window cannot be negative, and a chunk needs a token")
        self.codec = KVCodec(basis, plan, backend=backend, recorder=recorder)
        self.sink, self.window, self.chunk_tokens, self.resident = sink, window, chunk_tokens, resident
        self.n_encoded = 0
        """Tokens that were coded, times layers."""
        layer_types, per_layer = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
        layers: list[Any] = []
        for i, (kind, kwargs) in enumerate(zip(layer_types, per_layer, strict=True)):
            is_coded = kind == "full_attention"
            layers.append(TransformCodedLayer(self.codec, i, sink, resident) if is_coded else DYNAMIC_LAYER_TYPE_MAPPING[kind](**kwargs))
        if basis is not None and plan.is_lossy and basis.n_layers != len(layers):
            raise ValueError(f"the basis is of a model of {basis.n_layers} layers, this one has {len(layers)}")
        super().__init__(layers=layers)
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @classmethod
    def from_cache(cls, cache: Any, config: Any, basis: KVBasis | None, plan: KVPlan, **options: Any) -> "TransformCodedCache":
        """The tokens of another cache, coded."""
        made = cls(config, basis, plan, **options)
        for i, (keys, values) in enumerate(layer_pairs(cache)):
            made.update(keys, values, i)
        return made

    def to_dynamic(self) -> DynamicCache:
        """All tokens as a `DynamicCache`; those that were coded as decoded."""
        made = DynamicCache()
        for i, layer in enumerate(self.layers):
            keys, values = layer.all_states() if isinstance(layer, TransformCodedLayer) else (layer.keys, layer.values)
            if keys is not None:
                made.update(keys, values, i)
        return made

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Pair:
        """Append tokens to a layer; its keys and values, those of this call as they came."""
        pair = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        self._settle(layer_idx)
        return pair

    def _settle(self, layer_idx: int) -> None:
        """Codes what is beyond the window, once all layers that are coded together have it."""
        members = self.codec.layers_of(layer_idx)
        layers = [self.layers[i] for i in members]
        if not all(isinstance(layer, TransformCodedLayer) for layer in layers):
            return
        with self._lock:
            while min(layer.n_tail for layer in layers) >= self.window + self.chunk_tokens:
                first = layers[0].n_sunk + layers[0].n_coded
                pairs = [layer.take(self.chunk_tokens) for layer in layers]
                chunk = self.codec.encode([k for k, _ in pairs], [v for _, v in pairs], layer=members[0], first=first)
                for layer in layers:
                    layer.settle(chunk)
                self.n_encoded += chunk.n_tokens * len(layers)

    def compress(self) -> None:
        """Between turns: drop the decoded copies of coded tokens."""
        for layer in self._coded_layers():
            layer.resident = CODED
            layer.release()

    def decompress(self) -> None:
        """Keep decoded copies again, made now."""
        for layer in self._coded_layers():
            layer.resident = DECODED
            layer.before_tail()

    def _coded_layers(self) -> Iterator[TransformCodedLayer]:
        return (layer for layer in self.layers if isinstance(layer, TransformCodedLayer))

    def nbytes(self) -> dict[str, int]:
        """Bytes: of the exact first and last tokens as they are in memory (`sinks`, `tail`), of the chunks (`coded`), of decoded copies
        (`decoded`); what 16-bit copies of all tokens would take (`raw`, at the
        cache's own width); and of the file that `save` would write (`total`)."""
        from .saved import saved_bytes

        counts = {"sinks": 0, "coded": 0, "tail": 0, "decoded": 0, "raw": 0}
        seen: set[int] = set()
        for layer in self._coded_layers():
            if not layer.is_initialized:
                continue
            counts["sinks"] += _bytes_of(layer.sinks)
            counts["tail"] += _bytes_of((layer.keys, layer.values))
            counts["decoded"] += _bytes_of(layer.decoded)
            n_rows, heads, _, head_dim = layer.keys.shape
            counts["raw"] += 2 * n_rows * heads * layer.get_seq_length() * head_dim * layer.keys.element_size()
            for held in layer.chunks:
                if id(held.chunk) not in seen:
                    seen.add(id(held.chunk))
                    counts["coded"] += sum(len(section.data) for row in held.rows for section in held.chunk.rows[row])
        return {**counts, "total": saved_bytes(self)}

    def stats(self) -> dict[str, Any]:
        """Tokens held and coded, bits an element of the coded ones, and the ratio of the whole cache to 16-bit copies of all of it."""
        counts = self.nbytes()
        coded = sum(
            layer.n_coded * layer.keys.shape[0] * layer.keys.shape[1] * layer.keys.shape[3] * 2
            for layer in self._coded_layers()
            if layer.is_initialized
        )
        tokens = self.get_seq_length()
        return {
            "tokens": tokens,
            "coded_tokens": max((layer.n_coded for layer in self._coded_layers()), default=0),
            "bits_per_element": 8 * counts["coded"] / coded if coded else None,
            "ratio": counts["raw"] / counts["total"] if counts["raw"] else None,
            **counts,
        }

    def save(self, path: Any, *, force: bool = False) -> int:
        """Write the cache to a file, which appears whole or not at all; its bytes. FileExistsError without `force`. ValueError with layers
        that are not full attention."""
        from .saved import save

        return save(self, path, force=force)

    @classmethod
    def load(cls, path: Any, config: Any, basis: KVBasis | None, plan: KVPlan, **options: Any) -> "TransformCodedCache":
        """The cache of a file, or of the bytes of one, coded as it is. ValueError if it was coded in another basis or by another plan;
        FormatError, CorruptError."""
        from .saved import load

        return load(cls, path, config, basis, plan, **options)


def _joined(parts: Sequence[Pair]) -> Pair:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([keys for keys, _ in parts], dim=2), torch.cat([values for _, values in parts], dim=2)


def _bytes_of(pair: Pair | tuple[Any, Any] | None) -> int:
    if pair is None or pair[0] is None:
        return 0
    return sum(int(state.numel() * state.element_size()) for state in pair)

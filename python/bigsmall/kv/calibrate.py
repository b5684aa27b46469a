"""Fitting the basis of a model: run text through it, show its caches to a `KVCalibrator`, and keep what `finish` gives."""

from collections.abc import Iterable
from typing import Any

import torch

from .basis import BIN_SIGMA, KEY, MAX_FIXED_BITS, N_BINS, VALUE, Group, KVBasis
from .quantise import minmax_errors
from .rope import RopeTable
from .states import columns, layer_pairs

GROUPS = ("layer", "head")


class KVCalibrator:
    """Sums up the keys and values that a model makes of calibration text.

    `model_or_config`: a transformers model, or its config. `group`: what is coded together, the heads of a "layer", each "head" alone, or
    the
    heads of so many layers in a row (int). `sink`: first tokens of each sequence, which are left out, as they are never coded. `rope`: True
    to undo the rotary embedding of keys,
    False to leave it, "auto" for what concentrates each layer's keys better. `max_tokens`: those beyond are not looked at. `reservoir`:
    rows kept for histograms. ValueError for what is none of
    these.
    """

    def __init__(
        self,
        model_or_config: Any,
        *,
        group: str | int = "layer",
        sink: int = 4,
        rope: bool | str = "auto",
        max_tokens: int = 200_000,
        reservoir: int = 32_768,
    ) -> None:
        if group not in GROUPS and not (isinstance(group, int) and group > 0):
            raise ValueError(f"no group {group!r}: there are layer, head, or a number of layers")
        if rope not in (True, False, "auto"):
            raise ValueError(f"rope is True, False or 'auto', not {rope!r}")
        self.model = model_or_config if hasattr(model_or_config, "config") else None
        config = model_or_config.config if self.model is not None else model_or_config
        self.config = config.get_text_config(decoder=True)
        self.group, self.sink, self.rope, self.max_tokens, self.reservoir = group, sink, rope, max_tokens, reservoir
        self.n_tokens = 0
        self.heads: tuple[int, ...] = ()
        self.head_dims: tuple[int, ...] = ()
        self.tables: tuple[RopeTable, ...] = ()
        self._moments: dict[tuple[str, tuple[int, ...], tuple[int, ...], bool], _Moments] = {}

    def run(self, batches: Iterable[torch.Tensor]) -> "KVCalibrator":
        """Run batches of token ids `[B, T]` through the model, and observe what it caches."""
        if self.model is None:
            raise ValueError("only a calibrator of a model can run one: it was given a config")
        for ids in batches:
            if self.n_tokens >= self.max_tokens:
                break
            with torch.no_grad():
                self.observe(self.model(input_ids=ids, use_cache=True).past_key_values)
        return self

    def observe(
        self, past_key_values: Any, *, positions: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
    ) -> "KVCalibrator":
        """Add the tokens of a cache that was filled from its first token on.

        `positions` `[T]`: those of its tokens (default: 0, 1, …). `attention_mask` `[B, T]`: tokens that are padding are left out.
        """
        pairs = layer_pairs(past_key_values)
        if not pairs:
            return self
        if not self._moments:
            self._begin(pairs)
        if tuple(keys.shape[1] for keys, _ in pairs) != self.heads:
            raise ValueError("the cache has other layers or heads than the first one")
        n_tokens = pairs[0][0].shape[2]
        if positions is None:
            positions = torch.arange(n_tokens)
        used = slice(self.sink, min(n_tokens, self.sink + max(0, self.max_tokens - self.n_tokens)))
        mask = None if attention_mask is None else attention_mask[:, used].bool()
        states = {KEY: [k[:, :, used].float() for k, _ in pairs], VALUE: [v[:, :, used].float() for _, v in pairs]}
        undone = [table.undo(k, positions[used]) for table, k in zip(self.tables, states[KEY], strict=True)] if self.rope else []
        for (kind, layers, heads, is_undone), moments in self._moments.items():
            source = undone if is_undone else states[kind]
            rows = columns([source[layer] for layer in layers], heads)
            moments.add(rows.flatten(0, 1) if mask is None else rows[mask])
        self.n_tokens += int(mask.sum()) if mask is not None else states[KEY][0].shape[0] * states[KEY][0].shape[2]
        return self

    def finish(self, *, rank_tol: float = 1e-10, dtype: torch.dtype = torch.bfloat16, description: str = "") -> KVBasis:
        """The basis. Components with less than `rank_tol` of the first one's variance are dropped; the vectors are rounded to `dtype`.

        ValueError if nothing was observed.
        """
        if self.n_tokens < 2:
            raise ValueError("a basis needs calibration data: observe some caches, longer than the sink, first")
        turned = self._turned()
        groups = []
        for (kind, layers, heads, is_undone), moments in self._moments.items():
            if kind == VALUE or is_undone == turned[layers]:
                groups.append(moments.group(kind, layers, heads, rank_tol, dtype))
        groups.sort(key=lambda group: (group.layers, group.kind, group.heads))
        tables = tuple(
            table if turned[self._layers_of(layer)] else RopeTable.none(table.head_dim) for layer, table in enumerate(self.tables)
        )
        about = {"n_tokens": self.n_tokens, "model_type": self.config.model_type, "group": str(self.group), "data": description}
        return KVBasis(tuple(groups), tables, self.heads, self.head_dims, self.sink, about)

    def _begin(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.heads = tuple(int(keys.shape[1]) for keys, _ in pairs)
        self.head_dims = tuple(int(keys.shape[3]) for keys, _ in pairs)
        layer_types = getattr(self.config, "layer_types", None) or ["full_attention"] * len(pairs)
        source = RopeTable.from_config if self.model is None else RopeTable.from_model
        of = self.config if self.model is None else self.model
        tables = []
        for layer, head_dim in enumerate(self.head_dims):
            table = source(of, layer_types[layer]) if self.rope else RopeTable.none(head_dim)
            tables.append(table if table.head_dim == head_dim else RopeTable.none(head_dim))
        self.tables = tuple(tables)
        ways = {True: [True], False: [False], "auto": [True, False]}[self.rope]
        for layers in dict.fromkeys(self._layers_of(layer) for layer in range(len(pairs))):
            all_heads = tuple(range(self.heads[layers[0]]))
            parts = [(head,) for head in all_heads] if self.group == "head" else [all_heads]
            for heads in parts:
                width = sum(self.head_dims[layer] for layer in layers) * len(heads)
                for kind, is_undone in [*((KEY, way) for way in ways), (VALUE, False)]:
                    self._moments[kind, layers, heads, is_undone] = _Moments(width, self.reservoir)

    def _layers_of(self, layer: int) -> tuple[int, ...]:
        """Layers that are coded with that one: neighbours of the same heads."""
        if not isinstance(self.group, int):
            return (layer,)
        start = layer // self.group * self.group
        members = range(start, min(start + self.group, len(self.heads)))
        alike = all((self.heads[i], self.head_dims[i]) == (self.heads[start], self.head_dims[start]) for i in members)
        return tuple(members) if alike else (layer,)

    def _turned(self) -> dict[tuple[int, ...], bool]:
        """Whether the keys of each set of layers are coded with their rotation undone."""
        gains: dict[tuple[tuple[int, ...], bool], float] = {}
        for (kind, layers, _, is_undone), moments in self._moments.items():
            if kind == KEY:
                gains[layers, is_undone] = gains.get((layers, is_undone), 0.0) + moments.coding_gain()
        return {layers: gains.get((layers, True), float("-inf")) >= gains.get((layers, False), float("-inf")) for layers, _ in gains}


class _Moments:
    """Sums over rows of `width` columns, in float64, and a sample of the rows."""

    def __init__(self, width: int, reservoir: int) -> None:
        self.n = 0
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.second = torch.zeros(width, width, dtype=torch.float64)
        self.reservoir = reservoir
        self.shift: torch.Tensor | None = None
        self.rows: list[torch.Tensor] = []

    def add(self, rows: torch.Tensor) -> None:
        rows = rows.double().cpu()
        if self.shift is None:
            # Sums about a value near the mean lose no digits to it.
            self.shift = rows.mean(0) if len(rows) else None
        if not len(rows) or self.shift is None:
            return
        centred = rows - self.shift
        self.n += len(rows)
        if not bool(centred.isfinite().all()):
            raise ValueError("the cache holds numbers that are not finite")
        self.sum += centred.sum(0)
        self.second += centred.T @ centred
        kept = sum(map(len, self.rows))
        if kept < self.reservoir:
            self.rows.append(rows[: self.reservoir - kept].float())

    def covariance(self) -> torch.Tensor:
        mean = self.sum / self.n
        return self.second / self.n - torch.outer(mean, mean)

    def coding_gain(self) -> float:
        """Bits a coefficient that decorrelation saves over coding the columns as they are, on average: Jayant and Noll, Digital Coding of
        Waveforms (1984), chapter 12."""
        covariance = self.covariance()
        total = covariance.diagonal().sum()
        floor = max(float(total) * 1e-9, 1e-300)
        eigenvalues = torch.linalg.eigvalsh(covariance).clamp_min(floor)
        return float(-0.5 * eigenvalues.log2().mean() + 0.5 * (total / len(eigenvalues)).clamp_min(floor).log2())

    def group(self, kind: str, layers: tuple[int, ...], heads: tuple[int, ...], rank_tol: float, dtype: torch.dtype) -> Group:
        assert self.shift is not None
        covariance = self.covariance()
        mean = self.shift + self.sum / self.n
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        eigenvalues, vectors = eigenvalues.flip(0).clamp_min(0), vectors.flip(1)
        rank = int((eigenvalues > rank_tol * eigenvalues[0]).sum())
        eigenvalues, vectors = eigenvalues[:rank], vectors[:, :rank]
        # The largest entry is positive, so that every run gives the same signs.
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        vectors = (vectors * signs).to(dtype).float()
        mean, variances = mean.float(), eigenvalues.float()
        coefficients = (torch.cat(self.rows) - mean) @ vectors
        return Group(
            kind, layers, heads, mean, vectors, variances, histogram(coefficients, variances), minmax_errors(coefficients, MAX_FIXED_BITS)
        )


def histogram(coefficients: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """Counts `[r, N_BINS]` of coefficients `[N, r]`, in bins of `BIN_SIGMA` standard deviations."""
    middle = N_BINS // 2
    bins = (coefficients / (variances.sqrt() * BIN_SIGMA)).round().clamp(-middle, middle).long() + middle
    n_components = coefficients.shape[1]
    flat = (bins + torch.arange(n_components) * N_BINS).flatten()
    return torch.bincount(flat, minlength=n_components * N_BINS).reshape(n_components, N_BINS)

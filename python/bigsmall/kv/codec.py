"""Stretches of keys and values as bytes, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch

from .. import _core
from ..errors import CorruptError, OptionError
from ..torch import to_tensor
from .basis import KEY, Group, KVBasis
from .plan import ENTROPY, LLOYD, LLOYD_BITS, LOSSLESS, GroupPlan, KVPlan
from .quantise import (
    MinMax,
    dequantise_minmax,
    dequantise_steps,
    gaussian_levels,
    minmax_parameters,
    quantise_minmax,
    quantise_steps,
)
from .recorder import NoRecorder, Recorder
from .rope import RopeTable
from .states import Pair, columns
from .words import decode_words, encode_words

BACKENDS = ("auto", "rust", "torch")


class Body(IntEnum):
    """What a section's body is; `docs/format/kv.md`."""

    WORDS = 0
    PACKED = 2
    CODED = 3
    INT8 = 5


@dataclass(frozen=True)
class Section:
    """The body of a stretch: of group `at` of the basis, or of layer `at` where the body is words."""

    body: Body
    is_value: bool
    at: int
    data: bytes


@dataclass(frozen=True)
class CodedChunk:
    """Tokens `first` … `first + n_tokens - 1` of some layers that are coded together; the sections of each row of the batch."""

    layers: tuple[int, ...]
    first: int
    n_tokens: int
    rows: tuple[tuple[Section, ...], ...]

    @property
    def n_bytes(self) -> int:
        return sum(len(section.data) for row in self.rows for section in row)


class KVCodec:
    """Codes stretches of a cache by a plan in a basis. Tensors are transformed on their own device.

    `backend`: "rust" packs and codes in the extension; "torch" packs fixed widths with torch operations, for devices that the bytes are to
    stay on; "auto" is rust. ValueError for a plan
    of another basis.
    """

    def __init__(self, basis: KVBasis | None, plan: KVPlan, *, backend: str = "auto", recorder: Recorder | None = None) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"no backend {backend!r}: there are {', '.join(BACKENDS)}")
        if plan.mode != LOSSLESS and (basis is None or plan.basis_id != basis.id):
            raise ValueError(f"the plan is for basis {plan.basis_id}, which is not the one given")
        self.basis, self.plan, self.backend = basis, plan, backend
        self.recorder = recorder or NoRecorder()
        self._groups: dict[tuple[int, torch.device], _Prepared] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "KVCodec":
        # It does not change: copies of a cache share it.
        return self

    def layers_of(self, layer: int) -> tuple[int, ...]:
        """The layers that are coded with that one."""
        if self.basis is None or not self.plan.is_lossy:
            return (layer,)
        return next((layers for layers in self.basis.layer_sets if layer in layers), (layer,))

    def encode(
        self,
        keys: torch.Tensor | Sequence[torch.Tensor],
        values: torch.Tensor | Sequence[torch.Tensor],
        *,
        layer: int,
        first: int = 0,
        positions: torch.Tensor | None = None,
    ) -> CodedChunk:
        """Keys and values `[B, H, N, D]` of a layer, or of each of the layers that are coded with it.

        `positions` `[N]`: where the rotary embedding of the keys has put them (default: from `first` on). Numbers that are not finite make
        the stretch exact words.
        """
        layers = self.layers_of(layer)
        pairs = _pairs(keys, values, len(layers))
        n_rows, _, n_tokens, _ = pairs[0][0].shape
        if not self.plan.is_lossy or not all(bool(state.isfinite().all()) for pair in pairs for state in pair):
            return CodedChunk(layers, first, n_tokens, tuple(_exact(layers, pairs, row) for row in range(n_rows)))
        assert self.basis is not None
        if positions is None:
            positions = torch.arange(first, first + n_tokens)
        with self.recorder.stage("rope"):
            states = {
                True: [pair[1].float() for pair in pairs],
                False: [self.basis.rope[at].undo(pair[0].float(), positions) for at, pair in zip(layers, pairs, strict=True)],
            }
        sections: list[list[Section]] = [[] for _ in range(n_rows)]
        for number, group in self.basis.groups_of(layers):
            bodies = self._encode_group(number, group, states[group.kind != KEY])
            kind = Body.CODED if self.plan.mode == ENTROPY else Body.PACKED
            for row, data in zip(sections, bodies, strict=True):
                row.append(Section(kind, group.kind != KEY, number, data))
        return CodedChunk(layers, first, n_tokens, tuple(map(tuple, sections)))

    def decode(
        self,
        chunk: CodedChunk,
        *,
        rows: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        shapes: Sequence[tuple[int, int]] | None = None,
        positions: torch.Tensor | None = None,
        only: int | None = None,
    ) -> list[Pair]:
        """(keys, values), each `[rows, H, N, D]`, of each layer of the chunk, or the `only` one.

        `rows`: of the batch, in the order wanted (default: all). `shapes`: (heads, head_dim) of each layer, needed without a basis.
        CorruptError for bytes that are not what `encode` makes.
        """
        chosen = range(len(chunk.rows)) if rows is None else rows
        device = torch.device(device)
        wanted = [i for i, layer in enumerate(chunk.layers) if only is None or layer == only]
        if shapes is None:
            if self.basis is None:
                raise ValueError("the shapes of the layers are needed where there is no basis")
            shapes = [(self.basis.heads[layer], self.basis.head_dims[layer]) for layer in chunk.layers]
        if all(section.body == Body.WORDS for row in chunk.rows for section in row):
            return [_words_of(chunk, chosen, i, shapes[i], dtype, device) for i in wanted]
        assert self.basis is not None
        if positions is None:
            positions = torch.arange(chunk.first, chunk.first + chunk.n_tokens)
        out = {
            (i, is_value): torch.empty((len(chosen), shapes[i][0], chunk.n_tokens, shapes[i][1]), dtype=torch.float32, device=device)
            for i in wanted
            for is_value in (False, True)
        }
        for number, group in self.basis.groups_of(chunk.layers):
            is_value = group.kind != KEY
            bodies = [_body_of(chunk.rows[row], number, is_value) for row in chosen]
            places = [(out[i, is_value], i) for i in wanted]
            self._decode_group(number, group, bodies, chunk.n_tokens, places, shapes, device)
        pairs = []
        for i in wanted:
            with self.recorder.stage("rope"):
                keys = self.basis.rope[chunk.layers[i]].redo(out[i, False], positions)
            pairs.append((keys.to(dtype), out[i, True].to(dtype)))
        return pairs

    def _prepared(self, number: int, device: torch.device) -> "_Prepared":
        if (number, device) not in self._groups:
            assert self.basis is not None
            self._groups[number, device] = _Prepared(self.basis.groups[number], self.plan.groups[number], self.plan, device)
        return self._groups[number, device]

    def _encode_group(self, number: int, group: Group, states: list[torch.Tensor]) -> list[bytes]:
        """The body of each row of the batch."""
        prepared = self._prepared(number, states[0].device)
        n_tokens = states[0].shape[2]
        with self.recorder.stage("transform"):
            rows = columns(states, group.heads)
            coefficients = torch.matmul(rows, prepared.forward) - prepared.bias
        plan = prepared.plan
        if self.plan.mode == ENTROPY:
            with self.recorder.stage("quantise"):
                indices = quantise_steps(coefficients, plan.step, self.plan.dead_zone).cpu().numpy()
            with self.recorder.stage("code"):
                return [prepared.coder.encode(one, n_tokens) for one in indices]
        assert prepared.widths is not None
        bodies = []
        with self.recorder.stage("quantise"):
            if self.plan.quantiser == LLOYD:
                packed, parameters = prepared.to_levels(coefficients), None
            else:
                parameters = _half_parameters(minmax_parameters(coefficients, prepared.widths), coefficients, prepared.widths)
                packed = quantise_minmax(coefficients, prepared.widths, parameters)
        for row, one in enumerate(packed):
            with self.recorder.stage("pack"):
                data = self._pack(one, prepared)
            if parameters is not None:
                head = torch.stack([parameters.scale[row], parameters.offset[row]]).half().cpu().numpy().tobytes()
                data = head + data
            bodies.append(data)
        return bodies

    def _decode_group(
        self,
        number: int,
        group: Group,
        bodies: list[bytes],
        n_tokens: int,
        places: list[tuple[torch.Tensor, int]],
        shapes: Sequence[tuple[int, int]],
        device: torch.device,
    ) -> None:
        """Writes the columns of the wanted layers to `places`, each `[rows, H, N, D]`."""
        prepared = self._prepared(number, device)
        plan, n_kept = prepared.plan, len(prepared.plan.kept)
        for row, body in enumerate(bodies):
            if self.plan.mode == ENTROPY:
                with self.recorder.stage("code"):
                    indices = to_tensor(prepared.coder.decode(body, n_tokens)).reshape(n_kept, n_tokens).to(device)
                with self.recorder.stage("quantise"):
                    assert prepared.centroids is not None
                    coefficients = dequantise_steps(indices, plan.step, prepared.centroids)
            else:
                coefficients = self._unpack(body, prepared, n_tokens, device)
            with self.recorder.stage("transform"):
                width = 0
                for i in range(len(group.layers)):
                    heads, head_dim = shapes[i]
                    n_columns = len(group.heads) * head_dim
                    place = next((tensor for tensor, at in places if at == i), None)
                    if place is not None:
                        part = slice(width, width + n_columns)
                        restored = torch.addmm(prepared.mean[part], coefficients, prepared.backward[:, part])
                        states = restored.reshape(n_tokens, len(group.heads), head_dim).transpose(0, 1)
                        if len(group.heads) == heads:
                            place[row] = states
                        else:
                            place[row, list(group.heads)] = states
                    width += n_columns

    def _pack(self, indices: torch.Tensor, prepared: "_Prepared") -> bytes:
        if self.backend == "torch":
            from .packing import pack_bits

            return pack_bits(indices, prepared.width_list)
        n_tokens = indices.shape[-1]
        return _core.kv_pack(indices.cpu().to(torch.uint16).numpy(), prepared.width_list, n_tokens)

    def _unpack(self, body: bytes, prepared: "_Prepared", n_tokens: int, device: torch.device) -> torch.Tensor:
        n_kept = len(prepared.plan.kept)
        head_bytes = 0 if self.plan.quantiser == LLOYD else 4 * n_kept
        if len(body) < head_bytes:
            raise CorruptError("packed indices end before their scales do")
        with self.recorder.stage("pack"):
            if self.backend == "torch":
                from .packing import unpack_bits

                indices = unpack_bits(body[head_bytes:], prepared.width_list, n_tokens).to(device)
            else:
                indices = to_tensor(_core.kv_unpack(body[head_bytes:], prepared.width_list, n_tokens)).reshape(n_kept, n_tokens)
                indices = indices.to(device=device, dtype=torch.int32)
        with self.recorder.stage("quantise"):
            if self.plan.quantiser == LLOYD:
                return prepared.of_levels(indices)
            numbers = torch.frombuffer(bytearray(body[:head_bytes]), dtype=torch.float16) if head_bytes else torch.zeros(0)
            scale, offset = numbers.float().reshape(2, n_kept).to(device)
            return dequantise_minmax(indices, MinMax(scale, offset))


class _Prepared:
    """What coding a group needs, on one device."""

    def __init__(self, group: Group, plan: GroupPlan, whole: KVPlan, device: torch.device) -> None:
        self.plan = plan
        vectors = group.vectors[:, plan.kept].to(device)
        self.mean = group.mean.to(device)
        self.forward = vectors.contiguous()
        self.backward = vectors.T.contiguous()
        self.bias = self.mean @ self.forward
        self.centroids = None if plan.centroids is None else plan.centroids.to(device)
        self.widths = None if plan.widths is None else plan.widths.to(device)
        self.width_list = b"" if plan.widths is None else bytes(plan.widths.tolist())
        if whole.mode == ENTROPY:
            try:
                self.coder = _core.KvIndexCoder([list(table) for table in plan.freqs])
            except OptionError as error:
                raise ValueError(f"the plan has tables that are none: {error}") from None
        if plan.sigmas is not None:
            self.levels = [gaussian_levels(bits).to(device) if bits else torch.zeros(1, device=device) for bits in range(LLOYD_BITS + 1)]
            self.sigmas = plan.sigmas.to(device)

    def to_levels(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Indices `[B, r', N]` of the nearest of each component's levels."""
        scaled = (coefficients / self.sigmas).transpose(-1, -2).contiguous()
        indices = torch.empty(scaled.shape, dtype=torch.int32, device=scaled.device)
        for bits in set(self.width_list):
            levels = self.levels[bits]
            of_width = [i for i, width in enumerate(self.width_list) if width == bits]
            middles = (levels[1:] + levels[:-1]) / 2
            indices[:, of_width] = torch.bucketize(scaled[:, of_width], middles).int()
        return indices

    def of_levels(self, indices: torch.Tensor) -> torch.Tensor:
        """Coefficients `[N, r']` of indices `[r', N]`."""
        out = torch.empty(indices.shape, dtype=torch.float32, device=indices.device)
        for bits in set(self.width_list):
            of_width = [i for i, width in enumerate(self.width_list) if width == bits]
            out[of_width] = self.levels[bits][indices[of_width].long()]
        return (out * self.sigmas[:, None]).T


def _half_parameters(parameters: MinMax, coefficients: torch.Tensor, widths: torch.Tensor) -> MinMax:
    """Parameters that F16 holds exactly, widened so that every coefficient is within reach."""
    if not coefficients.shape[-2]:
        return parameters
    offset = parameters.offset.half()
    low = torch.where(offset.float() > parameters.offset, torch.nextafter(offset, torch.full_like(offset, -torch.inf)), offset).float()
    steps = (2.0 ** widths.float() - 1).clamp_min(1)
    exact = torch.where(widths > 0, (coefficients.amax(-2) - low) / steps, torch.zeros_like(low))
    scale = exact.half()
    high = torch.where(scale.float() < exact, torch.nextafter(scale, torch.full_like(scale, torch.inf)), scale).float()
    return MinMax(high, low)


def _pairs(keys: torch.Tensor | Sequence[torch.Tensor], values: torch.Tensor | Sequence[torch.Tensor], n_layers: int) -> list[Pair]:
    all_keys = [keys] if isinstance(keys, torch.Tensor) else list(keys)
    all_values = [values] if isinstance(values, torch.Tensor) else list(values)
    if len(all_keys) != n_layers or len(all_values) != n_layers:
        raise ValueError(f"{n_layers} layers are coded together, {len(all_keys)} were given")
    return list(zip(all_keys, all_values, strict=True))


def _exact(layers: tuple[int, ...], pairs: list[Pair], row: int) -> tuple[Section, ...]:
    return tuple(
        Section(Body.WORDS, is_value, layer, encode_words(pair[is_value][row]))
        for layer, pair in zip(layers, pairs, strict=True)
        for is_value in (False, True)
    )


def _body_of(row: tuple[Section, ...], at: int, is_value: bool) -> bytes:
    for section in row:
        if section.at == at and section.is_value == is_value:
            return section.data
    raise CorruptError(f"a stretch lacks the {'values' if is_value else 'keys'} of {at}")


def _words_of(chunk: CodedChunk, rows: Sequence[int], i: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Pair:
    heads, head_dim = shape
    parts = []
    for is_value in (False, True):
        bodies = [_body_of(chunk.rows[row], chunk.layers[i], is_value) for row in rows]
        words = [decode_words(body, dtype, (heads, chunk.n_tokens, head_dim)) for body in bodies]
        parts.append(torch.stack(words).to(device))
    return parts[0], parts[1]


__all__ = ["Body", "CodedChunk", "KVCodec", "RopeTable", "Section"]

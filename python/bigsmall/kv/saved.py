"""Caches as files: `docs/format/kv.md`."""

import json
from typing import TYPE_CHECKING, Any

import torch

from .. import _core
from ..errors import FormatError
from .basis import KVBasis
from .codec import Body, CodedChunk, Section
from .plan import KVPlan
from .words import CODES, DTYPES, decode_words, encode_words

if TYPE_CHECKING:
    from .cache import TransformCodedCache

Record = tuple[int, bool, int, int, int, int]
"""Kind of body, is value, layer or group, row, first token, tokens."""


def save(cache: "TransformCodedCache", path: Any, *, force: bool) -> int:
    """See `TransformCodedCache.save`."""
    header, records, bodies = _parts(cache)
    return _core.kv_write(path, header, records, bodies, force=force)


def to_bytes(cache: "TransformCodedCache") -> bytes:
    """The file in memory."""
    return _core.kv_to_bytes(*_parts(cache))


def saved_bytes(cache: "TransformCodedCache") -> int:
    """Bytes of the file."""
    header, _, bodies = _parts(cache)
    return _core.kv_file_bytes(header, [len(body) for body in bodies])


def load(
    cls: type["TransformCodedCache"], path: Any, config: Any, basis: KVBasis | None, plan: KVPlan, **options: Any
) -> "TransformCodedCache":
    """See `TransformCodedCache.load`."""
    reader = _core.KvReader(path)
    header = reader.header
    for what, stored, given in (("basis", header["basis"], basis.id if basis and plan.is_lossy else ""), ("plan", header["plan"], plan.id)):
        if stored != given:
            raise ValueError(f"the cache was coded with {what} {stored or 'none'}, given is {given or 'none'}")
    cache = cls(config, basis, plan, sink=header["sink"], window=header["window"], chunk_tokens=header["chunk"], **options)
    if len(cache.layers) != len(header["layers"]):
        raise ValueError(f"the cache has {len(header['layers'])} layers, the model {len(cache.layers)}")
    _fill(cache, reader)
    return cache


def _parts(cache: "TransformCodedCache") -> tuple[str, list[Record], list[bytes]]:
    from .cache import TransformCodedLayer

    layers, records, bodies = [], [], []
    dtype, batch = torch.bfloat16, 0
    seen: set[tuple[int, ...]] = set()
    for i, layer in enumerate(cache.layers):
        if not isinstance(layer, TransformCodedLayer):
            raise ValueError(f"layer {i} is no layer of full attention: its state is not saved")
        if not layer.is_initialized:
            layers.append({"heads": 0, "head_dim": 0, "tokens": 0})
            continue
        dtype, batch = layer.dtype, layer.keys.shape[0]
        layers.append({"heads": layer.keys.shape[1], "head_dim": layer.keys.shape[3], "tokens": layer.get_seq_length()})
        for row in range(batch):
            for is_value in (False, True):
                at = 0
                for part in ([layer.sinks] if layer.sinks is not None else []) + [None] + [(layer.keys, layer.values)]:
                    if part is None:
                        at += layer.n_coded
                        continue
                    states = part[is_value][row]
                    if states.shape[1]:
                        records.append((int(Body.WORDS), is_value, i, row, at, states.shape[1]))
                        bodies.append(encode_words(states))
                    at += states.shape[1]
        for held in layer.chunks:
            key = (held.chunk.layers[0], held.chunk.first)
            if key in seen:
                continue
            seen.add(key)
            for row, source in enumerate(held.rows):
                for section in held.chunk.rows[source]:
                    records.append((int(section.body), section.is_value, section.at, row, held.chunk.first, held.chunk.n_tokens))
                    bodies.append(section.data)
    # In the order of tokens, which is the order that the format asks for.
    order = sorted(range(len(records)), key=lambda i: (records[i][4], records[i][2], records[i][3], records[i][1], records[i][0]))
    plan, basis = cache.codec.plan, cache.codec.basis
    header = {
        "basis": basis.id if basis is not None and plan.is_lossy else "",
        "plan": plan.id,
        "lossy": plan.is_lossy,
        "dtype": CODES[dtype],
        "batch": batch,
        "sink": cache.sink,
        "window": cache.window,
        "chunk": cache.chunk_tokens,
        "layers": layers,
    }
    return json.dumps(header, separators=(",", ":")), [records[i] for i in order], [bodies[i] for i in order]


def _fill(cache: "TransformCodedCache", reader: _core.KvReader) -> None:
    """Puts the sections of a file where they belong, and checks that they cover all tokens."""
    from .cache import Held, TransformCodedLayer

    header = reader.header
    batch, dtype = header["batch"], DTYPES[header["dtype"]]
    words: dict[tuple[int, int], dict[tuple[int, bool], bytes]] = {}
    chunks: dict[tuple[int, tuple[int, ...]], dict[int, list[Section]]] = {}
    spans: dict[tuple[int, tuple[int, ...]], int] = {}
    codec = cache.codec
    for number, ((body, is_value, at, row, first, n_tokens), _) in enumerate(reader.sections()):
        data = reader.body(number)
        if body == Body.WORDS and not _is_chunk(cache, header, at, first, n_tokens):
            words.setdefault((at, first), {})[row, is_value] = data
            spans[first, (at, -1)] = n_tokens
            continue
        if body == Body.WORDS:
            members = codec.layers_of(at)
        elif codec.basis is not None and at < len(codec.basis.groups):
            members = codec.basis.groups[at].layers
        else:
            raise FormatError(f"section {number} is of group {at}, which the basis has not")
        if spans.setdefault((first, members), n_tokens) != n_tokens:
            raise FormatError(f"the sections from token {first} on are not of one length")
        chunks.setdefault((first, members), {}).setdefault(row, []).append(Section(Body(body), is_value, at, data))
    for i, (layer, about) in enumerate(zip(cache.layers, header["layers"], strict=True)):
        if not isinstance(layer, TransformCodedLayer):
            raise ValueError(f"layer {i} is no layer of full attention: its state was not saved")
        if about["tokens"] == 0:
            continue
        shape = (about["heads"], about["head_dim"])
        at = 0
        empty = torch.empty((batch, shape[0], 0, shape[1]), dtype=dtype)
        layer.lazy_initialization(empty, empty)
        while at < about["tokens"]:
            if (i, at) in words:
                n_tokens = spans[at, (i, -1)]
                parts = words[i, at]
                if len(parts) != 2 * batch:
                    raise FormatError(f"layer {i} lacks rows from token {at} on")
                pair = tuple(
                    torch.stack([decode_words(parts[row, is_value], dtype, (shape[0], n_tokens, shape[1])) for row in range(batch)])
                    for is_value in (False, True)
                )
                if at == 0 and n_tokens <= cache.sink and cache.sink:
                    layer.sinks = (pair[0], pair[1])
                else:
                    layer.keys, layer.values = pair
                at += n_tokens
                continue
            members = codec.layers_of(i)
            rows = chunks.get((at, members))
            if rows is None or len(rows) != batch:
                raise FormatError(f"nothing holds layer {i} from token {at} on")
            chunk = CodedChunk(members, at, spans[at, members], tuple(tuple(rows[row]) for row in range(batch)))
            chunk = next(
                (held.chunk for one in members for held in getattr(cache.layers[one], "chunks", []) if held.chunk.first == at), chunk
            )
            layer.chunks.append(Held(chunk, tuple(range(batch))))
            at += chunk.n_tokens


def _is_chunk(cache: "TransformCodedCache", header: dict[str, Any], layer: int, first: int, n_tokens: int) -> bool:
    """Whether exact words are a chunk of their own: not the first tokens, and not the last."""
    is_sink = first == 0 and cache.sink > 0
    return not is_sink and first + n_tokens < header["layers"][layer]["tokens"]

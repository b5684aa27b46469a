"""Caches as transformers uses them: the same tokens with a lossless plan, the algebra of caches, files, int8."""

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import DynamicCache  # noqa: E402

from bigsmall import BigSmallError, CorruptError, FormatError  # noqa: E402
from bigsmall.kv import Int8KVCache, KVPlan, TransformCodedCache, get_kv_cache  # noqa: E402
from bigsmall.kv.int8 import dequantise_int8, quantise_int8  # noqa: E402
from bigsmall.kv.saved import to_bytes  # noqa: E402
from kv_models import batches, demo_basis, demo_model  # noqa: E402
from kv_synthetic import CONFIG, cache_of, calibrated  # noqa: E402

SMALL = {"sink": 4, "window": 16, "chunk_tokens": 16}
RESIDENT = ["decoded", "coded"]

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3, "do_sample": False},
    "several of the beams": {"num_beams": 4, "num_return_sequences": 3, "do_sample": False},
    "prompt lookup": {"prompt_lookup_num_tokens": 4, "do_sample": False},
}


def lossless(resident: str = "decoded", **options: Any) -> TransformCodedCache:
    return TransformCodedCache(demo_model().config, None, KVPlan.lossless(), resident=resident, **{**SMALL, **options})


def plain() -> DynamicCache:
    return DynamicCache(config=demo_model().config)


def generated(cache: Any, ids: torch.Tensor, n: int = 50, **options: Any) -> torch.Tensor:
    torch.manual_seed(5)
    return demo_model().generate(ids, past_key_values=cache, max_new_tokens=n, eos_token_id=None, pad_token_id=0, **options)


def prompt(n: int = 100) -> torch.Tensor:
    return batches(1, held_out=True, seed=3)[0][:, :n]


def same(a: DynamicCache, b: DynamicCache) -> bool:
    return all(torch.equal(x.keys, y.keys) and torch.equal(x.values, y.values) for x, y in zip(a.layers, b.layers, strict=True))


@pytest.mark.parametrize("resident", RESIDENT)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_lossless_plan_generates_the_same_tokens(mode: dict[str, Any], resident: str) -> None:
    cache = lossless(resident)
    assert torch.equal(generated(plain(), prompt(), **mode), generated(cache, prompt(), **mode))
    assert cache.n_encoded > 0


@pytest.mark.parametrize("resident", RESIDENT)
def test_assisted_generation_is_the_same(resident: str) -> None:
    mode = {"assistant_model": demo_model(), "do_sample": False}
    assert torch.equal(generated(plain(), prompt(), **mode), generated(lossless(resident), prompt(), **mode))


@pytest.mark.parametrize("resident", RESIDENT)
def test_left_padding_is_the_same(resident: str) -> None:
    ids = torch.cat([torch.cat([torch.zeros(1, 10, dtype=torch.long), prompt(90)], 1), prompt(100)])
    mask = torch.ones_like(ids)
    mask[0, :10] = 0
    options = {"attention_mask": mask, "do_sample": False}
    assert torch.equal(generated(plain(), ids, **options), generated(lossless(resident), ids, **options))


@pytest.mark.parametrize("resident", RESIDENT)
def test_several_turns_are_the_same_with_copies_dropped_between(resident: str) -> None:
    theirs, ours = plain(), lossless(resident)
    a, b = generated(theirs, prompt(), do_sample=False), generated(ours, prompt(), do_sample=False)
    for layer in ours.layers:
        layer.offload()
    assert ours.nbytes()["decoded"] == 0
    for layer in ours.layers:
        layer.prefetch()
    assert (ours.nbytes()["decoded"] > 0) == (resident == "decoded")
    ours.compress()
    assert ours.nbytes()["decoded"] == 0
    a, b = (torch.cat([one, prompt(20)], 1) for one in (a, b))
    a = generated(theirs, a, do_sample=False)
    if resident == "decoded":
        ours.decompress()
        assert ours.nbytes()["decoded"] > 0
    assert torch.equal(a, generated(ours, b, do_sample=False))
    assert same(theirs, ours.to_dynamic())


def test_a_filled_cache_is_taken_over() -> None:
    theirs = plain()
    ids = generated(theirs, prompt(), do_sample=False)
    ours = TransformCodedCache.from_cache(theirs, demo_model().config, None, KVPlan.lossless(), **SMALL)
    assert same(theirs, ours.to_dynamic())
    assert torch.equal(generated(theirs, ids, n=10, do_sample=False), generated(ours, ids, n=10, do_sample=False))


def test_a_lossy_plan_predicts_the_same_tokens() -> None:
    basis = demo_basis()
    plan = basis.plan(step=0.5)
    agree = total = 0
    for ids in batches(6, held_out=True, seed=1):
        cache = TransformCodedCache(demo_model().config, basis, plan, **SMALL)
        with torch.no_grad():
            expected = demo_model()(ids).logits[0, -60:]
            demo_model()(ids[:, :-60], past_key_values=cache)
            found = demo_model()(ids[:, -60:], past_key_values=cache).logits[0]
        agree += int((expected.argmax(-1) == found.argmax(-1)).sum())
        total += 60
    assert agree / total >= 0.98
    assert cache.stats()["ratio"] > 6


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("resident", RESIDENT)
def test_operations_are_those_of_a_dense_cache(resident: str, lossy: bool) -> None:
    """Random sequences of operations. A lossy cache is compared with the dense cache of its own decoded tokens."""
    basis = calibrated("layer") if lossy else None
    plan = basis.plan(step=0.5) if basis is not None else KVPlan.lossless()
    chance = random.Random(4)
    for trial in range(10):
        ours = TransformCodedCache(CONFIG, basis, plan, resident=resident, **SMALL)
        dense = DynamicCache()
        source = cache_of(600, seed=trial, batch=3)
        at, rows = 0, [0, 1, 2]
        for _ in range(20):
            operation = chance.choice(["update", "update", "update", "crop", "reorder", "select", "repeat", "reset", "copy", "save"])
            if operation == "update" and at < 500:
                n = chance.choice([1, 1, 7, 40])
                for layer, (keys, values) in enumerate(source):
                    part = keys[rows, :, at : at + n], values[rows, :, at : at + n]
                    exact = ours.update(*part, layer)
                    expected = dense.update(*part, layer)
                    if not lossy:
                        assert torch.equal(exact[0], expected[0])
                        assert torch.equal(exact[1], expected[1])
                    assert torch.equal(exact[0][:, :, -n:], part[0])
                at += n
            elif operation == "crop":
                n = chance.randint(0, min(60, ours.get_seq_length()))
                ours.crop(-n)
                dense.crop(-n)
                at -= n
            elif operation == "reorder" and rows:
                order = [chance.randrange(len(rows)) for _ in rows]
                for cache in (ours, dense):
                    cache.reorder_cache(torch.tensor(order))
            elif operation == "select" and len(rows) > 1:
                chosen = sorted(chance.sample(range(len(rows)), len(rows) - 1))
                for cache in (ours, dense):
                    cache.batch_select_indices(torch.tensor(chosen))
                rows = rows[: len(chosen)] if ours.get_seq_length() else rows
            elif operation == "repeat" and len(rows) < 3 and ours.get_seq_length():
                for cache in (ours, dense):
                    cache.batch_repeat_interleave(2)
                rows = [row for row in rows for _ in range(2)]
            elif operation == "reset" and chance.random() < 0.3:
                ours.reset()
                dense = DynamicCache()
                at = 0
            elif operation == "copy":
                ours = copy.deepcopy(ours) if chance.random() < 0.5 else pickle.loads(pickle.dumps(ours))
            elif operation == "save" and ours.get_seq_length():
                ours = TransformCodedCache.load(to_bytes(ours), CONFIG, basis, plan, resident=resident)
            assert ours.get_seq_length() == dense.get_seq_length() == at
            assert ours.get_mask_sizes(3, 0) == dense.get_mask_sizes(3, 0) or at == 0
            if lossy and at:
                # What was coded stays what it was decoded to.
                dense = ours.to_dynamic()
            elif at:
                assert same(ours.to_dynamic(), dense)


def test_tokens_are_coded_once_and_the_ends_are_exact() -> None:
    basis = calibrated("layer")
    cache = TransformCodedCache(CONFIG, basis, basis.plan(step=0.5), **SMALL)
    source = [tuple(state.bfloat16() for state in pair) for pair in cache_of(700, seed=9)]
    for t in range(700):
        for layer, (keys, values) in enumerate(source):
            cache.update(keys[:, :, t : t + 1], values[:, :, t : t + 1], layer)
        if t % 97 == 0:
            for layer, (keys, values) in enumerate(source):
                k, v = cache.layers[layer].all_states()
                for found, original in ((k, keys), (v, values)):
                    assert torch.equal(found[:, :, :4], original[:, :, : min(4, t + 1)])
                    assert torch.equal(found[:, :, -16:], original[:, :, max(0, t - 15) : t + 1])
    coded = cache.layers[0].n_coded
    assert coded >= 700 - 4 - 16 - 16
    assert cache.n_encoded == 2 * coded


@pytest.mark.parametrize("group", ["layer", "head", 2], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_file_holds_the_cache_and_its_size_is_known(tmp_path: Path, group: Any, dtype: torch.dtype) -> None:
    basis = calibrated(group)
    for plan in (basis.plan(step=0.5), basis.plan(bits=4, mode="fixed"), KVPlan.lossless()):
        cache = TransformCodedCache(CONFIG, basis, plan, **SMALL)
        for layer, (keys, values) in enumerate(cache_of(150, seed=1, batch=2)):
            cache.update(keys.to(dtype), values.to(dtype), layer)
        path = tmp_path / "cache.kv"
        assert cache.save(path, force=True) == path.stat().st_size == cache.nbytes()["total"]
        again = TransformCodedCache.load(path, CONFIG, basis, plan)
        assert same(cache.to_dynamic(), again.to_dynamic())
        assert to_bytes(again) == path.read_bytes()
        with pytest.raises(FileExistsError):
            cache.save(path)


def test_a_file_is_refused_with_another_basis_plan_or_model(tmp_path: Path) -> None:
    basis = calibrated("layer")
    plan = basis.plan(step=0.5)
    cache = TransformCodedCache(CONFIG, basis, plan, **SMALL)
    for layer, pair in enumerate(cache_of(60, seed=1)):
        cache.update(*pair, layer)
    path = tmp_path / "cache.kv"
    cache.save(path)
    with pytest.raises(ValueError, match="plan"):
        TransformCodedCache.load(path, CONFIG, basis, basis.plan(step=0.25))
    other = calibrated("head")
    with pytest.raises(ValueError, match="basis"):
        TransformCodedCache.load(path, CONFIG, other, other.plan(step=0.5))
    with pytest.raises(ValueError, match="layers"):
        TransformCodedCache(demo_model().config, basis, plan)
    for end in [*range(0, 200, 9), path.stat().st_size - 1]:
        with pytest.raises(BigSmallError):
            TransformCodedCache.load(path.read_bytes()[:end], CONFIG, basis, plan)
    data = path.read_bytes()
    chance = random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises((CorruptError, FormatError)):
            TransformCodedCache.load(bytes(damaged), CONFIG, basis, plan)


def test_more_tokens_than_16_bits_count() -> None:
    cache = TransformCodedCache(CONFIG, None, KVPlan.lossless(), window=16, chunk_tokens=40_000)
    states = torch.zeros(1, 2, 90_000, 16, dtype=torch.bfloat16)
    states[0, 1, -1, 3] = 5
    for layer in range(2):
        cache.update(states, states, layer)
    again = TransformCodedCache.load(to_bytes(cache), CONFIG, None, KVPlan.lossless())
    assert again.get_seq_length() == 90_000
    assert same(cache.to_dynamic(), again.to_dynamic())


def test_padding_rows_of_a_batch_are_apart() -> None:
    """A row's bytes do not depend on the other rows."""
    basis = calibrated("layer")
    plan = basis.plan(step=0.5)
    three, one = (TransformCodedCache(CONFIG, basis, plan, **SMALL) for _ in range(2))
    for layer, (keys, values) in enumerate(cache_of(100, seed=1, batch=3)):
        three.update(keys, values, layer)
        one.update(keys[1:2], values[1:2], layer)
    for many, single in zip(three.layers, one.layers, strict=True):
        assert [held.chunk.rows[1] for held in many.chunks] == [held.chunk.rows[0] for held in single.chunks]


def test_sliding_layers_are_those_of_transformers() -> None:
    config = transformers.MistralConfig(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, head_dim=16, sliding_window=32, vocab_size=64
    )
    cache = TransformCodedCache(config, None, KVPlan.lossless(), **SMALL)
    assert {type(layer).__name__ for layer in cache.layers} == {"DynamicSlidingWindowLayer"}
    model = transformers.MistralForCausalLM(config).eval()
    ids = torch.arange(50)[None]
    options = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(ids, past_key_values=DynamicCache(config=config), **options)
    assert torch.equal(expected, model.generate(ids, past_key_values=cache, **options))
    with pytest.raises(ValueError, match="full attention"):
        to_bytes(cache)


def test_int8_takes_what_it_says_and_is_close() -> None:
    config = demo_model().config
    cache = Int8KVCache(config)
    ids = generated(cache, prompt(), do_sample=False)
    tokens = cache.get_seq_length()
    assert tokens == ids.shape[1] - 1
    assert cache.nbytes() == 2 * config.num_hidden_layers * config.num_key_value_heads * (config.head_dim + 2) * tokens
    for mode in MODES.values():
        generated(Int8KVCache(config), prompt(40), n=12, **mode)
    theirs = plain()
    with torch.no_grad():
        demo_model()(prompt(), past_key_values=theirs)
    ours = Int8KVCache(config)
    for layer, one in enumerate(theirs.layers):
        keys, _ = ours.update(one.keys, one.values, layer)
        assert float(((keys - one.keys) ** 2).sum() / (one.keys**2).sum()) < 1e-4
    ours.crop(-30)
    ours.reset()
    assert ours.get_seq_length() == 0


def test_int8_numbers() -> None:
    states = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    numbers, scale = quantise_int8(states)
    assert numbers.dtype == torch.int8
    assert numbers[0].tolist() == [63, -127, 32, 0] or numbers[0].tolist() == [64, -127, 32, 0]
    assert scale.dtype == torch.float16
    restored = dequantise_int8(numbers, scale, torch.float32)
    assert float((restored - states).abs().max()) <= float(scale.float().max()) / 2 + 1e-3
    with pytest.raises(ValueError, match="finite"):
        quantise_int8(torch.tensor([[float("nan")]]))


@pytest.mark.parametrize("mode", ["auto", "cpu", "gpu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_stores_are_exact_and_count_what_they_hold(mode: str, dtype: torch.dtype) -> None:
    store = get_kv_cache("cpu", mode)
    chance = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(1, 4, 300, 32, generator=chance).to(dtype) for _ in range(2))
    for _ in range(3):
        store.set(2, keys, values)
    raw = 2 * keys.numel() * keys.element_size()
    assert (store.raw_size(), len(store), store.has(2), store.has(0)) == (raw, 1, True, False)
    assert store.compression_ratio() == store.memory_usage() / raw < 1
    got = store.get(2)
    assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(got, (keys, values), strict=True))
    store.append(2, keys[:, :, :5], values[:, :, :5])
    assert store.get(2)[0].shape == (1, 4, 305, 32)
    store.clear()
    assert (len(store), store.compression_ratio()) == (0, 1.0)
    with pytest.raises(KeyError):
        store.get(2)


def test_small_entries_do_not_grow() -> None:
    store = get_kv_cache()
    keys = torch.randn(2, 32, 16).bfloat16()
    store.set(0, keys, keys)
    assert store.memory_usage() <= store.raw_size() + 10
    store.set(1, keys[:0], keys[:0])
    assert store.get(1)[0].shape == (0, 32, 16)


def test_stores_of_other_kinds() -> None:
    keys = torch.randn(1, 2, 40, 64)
    lossy = get_kv_cache("cpu", "lossy")
    lossy.set(0, keys, keys)
    assert lossy.is_lossy
    assert float((lossy.get(0)[0] - keys).abs().max()) < 0.05
    assert isinstance(get_kv_cache(mode="int8", config=CONFIG), Int8KVCache)
    assert isinstance(get_kv_cache(mode="transform", config=CONFIG, basis=None, plan=KVPlan.lossless()), TransformCodedCache)
    with pytest.raises(ValueError, match="no mode"):
        get_kv_cache(mode="best")
    with pytest.raises(TypeError, match="int64"):
        get_kv_cache().set(0, keys.long(), keys.long())
    with pytest.raises(TypeError, match="values"):
        get_kv_cache().set(0, keys, keys.half())

"""Stretches coded and decoded: the transform, both ways of keeping coefficients, and odd inputs."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from bigsmall import CorruptError, FormatError, _core  # noqa: E402
from bigsmall.kv import KVBasis, KVCalibrator, KVCodec, KVPlan, RopeTable, reference  # noqa: E402
from bigsmall.kv.codec import Body  # noqa: E402
from bigsmall.kv.packing import pack_bits, unpack_bits  # noqa: E402
from bigsmall.kv.quantise import (  # noqa: E402
    dequantise_minmax,
    dequantise_steps,
    gaussian_levels,
    minmax_parameters,
    quantise_minmax,
    quantise_steps,
)
from kv_synthetic import CONFIG, cache_of, calibrated  # noqa: E402

ENTROPY = {"step": 0.25}
PLANS = {
    "entropy": {"step": 0.25},
    "entropy, coarse": {"ratio": 16},
    "minmax": {"bits": 4, "mode": "fixed"},
    "minmax, greedy": {"bits": 5.6, "mode": "fixed", "method": "greedy"},
    "lloyd": {"bits": 3, "mode": "fixed", "quantiser": "lloyd"},
}


def nmse(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float(((a - b) ** 2).sum() / ((a - a.mean(2, keepdim=True)) ** 2).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("group", ["layer", "head", 2], ids=str)
@pytest.mark.parametrize("wish", PLANS.values(), ids=PLANS)
def test_a_stretch_comes_back_close(wish: dict[str, object], group: object, dtype: torch.dtype) -> None:
    basis = calibrated(group)
    plan = basis.plan(**wish)
    codec = KVCodec(basis, plan)
    states = [(k.to(dtype), v.to(dtype)) for k, v in cache_of(300, seed=5, batch=2)]
    layers = codec.layers_of(0)
    assert layers == ((0, 1) if group == 2 else (0,))
    parts = [(states[i][0][:, :, 4:260], states[i][1][:, :, 4:260]) for i in layers]
    chunk = codec.encode([k for k, _ in parts], [v for _, v in parts], layer=0, first=4)
    decoded = codec.decode(chunk, dtype=dtype)
    for (keys, values), (k, v) in zip(parts, decoded, strict=True):
        assert (k.shape, v.shape, k.dtype) == (keys.shape, values.shape, dtype)
        assert nmse(keys, k) < 4 * plan.expected_nmse + 1e-4
        assert nmse(values, v) < 4 * plan.expected_nmse + 1e-4
    [(k, v)] = codec.decode(chunk, dtype=dtype, rows=[1, 1, 0], only=layers[-1])
    assert torch.equal(k, decoded[-1][0][[1, 1, 0]])
    assert torch.equal(v, decoded[-1][1][[1, 1, 0]])
    assert codec.encode([k for k, _ in parts], [v for _, v in parts], layer=0, first=4) == chunk


def test_variances_of_coefficients_are_the_eigenvalues() -> None:
    basis = calibrated("layer", dtype=torch.float32)
    table = basis.rope[0]
    rows = []
    for seed in range(3):
        keys, _ = cache_of(400, seed=seed)[0]
        rows.append(table.undo(keys[:, :, 4:].float(), torch.arange(4, 400)).transpose(1, 2).flatten(2)[0])
    group = next(group for group in basis.groups if group.kind == "k" and group.layers == (0,))
    centred = torch.cat(rows) - group.mean
    coefficients = centred @ group.vectors
    assert torch.allclose(coefficients.double().var(0, unbiased=False), group.variances.double(), rtol=1e-3, atol=1e-6)
    assert torch.allclose(coefficients @ group.vectors.T, centred, atol=1e-3)
    assert bool((group.variances.diff() <= 0).all())
    top = group.variances[: len(group.variances) // 2].sum() / group.variances.sum()
    assert top > 0.97


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_an_index_is_off_by_no_more_than_a_step(bits: int) -> None:
    values = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(bits))
    widths = torch.tensor([bits] * 6 + [0])
    parameters = minmax_parameters(values, widths)
    indices = quantise_minmax(values, widths, parameters)
    assert indices.shape == (3, 7, 50)
    assert int(indices.max()) <= 2**bits - 1
    restored = dequantise_minmax(indices, parameters)
    assert bool(((values - restored).abs()[..., :6] <= 0.51 * parameters.scale[:, None, :6] + 1e-5).all())
    assert not restored[..., 6].any()


def test_the_dead_zone_and_centroids() -> None:
    values = torch.tensor([[-1.3, -0.6, 0.0, 0.61, 0.63, 5.0]]).T
    indices = quantise_steps(values, 1.0, 0.12)
    assert indices.tolist() == [[-1, 0, 0, 0, 1, 5]]
    centroids = torch.tensor([[-0.9, 0.1, 0.8]])
    assert dequantise_steps(indices, 1.0, centroids).T[0].tolist() == pytest.approx([-0.9, 0.1, 0.1, 0.1, 0.8, 5.0])


def test_lloyds_levels_are_those_of_max() -> None:
    assert gaussian_levels(1).tolist() == pytest.approx([-0.7979, 0.7979], abs=1e-3)
    assert gaussian_levels(2).tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=1e-3)
    errors = (torch.randn(200_000, generator=torch.Generator().manual_seed(0))[:, None] - gaussian_levels(3)).abs().amin(1).square().mean()
    assert float(errors) == pytest.approx(0.03454, rel=0.02)


@pytest.mark.parametrize("widths", [[1], [2, 2], [4, 4], [8], [16], [3, 0, 5], [0, 0], []], ids=str)
@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 33])
def test_packing_by_torch_and_by_the_extension_is_the_same(widths: list[int], n_rows: int) -> None:
    chance = np.random.default_rng(n_rows)
    indices = np.array([chance.integers(0, 2**width, n_rows) for width in widths], dtype=np.uint16).reshape(len(widths), n_rows)
    packed = _core.kv_pack(indices, bytes(widths), n_rows)
    assert packed == pack_bits(torch.from_numpy(indices.astype(np.int32)), bytes(widths))
    assert np.array_equal(unpack_bits(packed, bytes(widths), n_rows).numpy(), indices)
    unpacked = np.frombuffer(memoryview(_core.kv_unpack(packed, bytes(widths), n_rows)), np.uint16).reshape(indices.shape)
    assert np.array_equal(unpacked, indices)
    with pytest.raises(CorruptError):
        unpack_bits(packed + b"x", bytes(widths), n_rows)
    with pytest.raises(CorruptError):
        _core.kv_unpack(packed + b"x", bytes(widths), n_rows)


def test_both_backends_make_the_same_bytes() -> None:
    basis = calibrated("layer")
    plan = basis.plan(bits=4, mode="fixed")
    keys, values = cache_of(100, seed=3)[1]
    chunks = [KVCodec(basis, plan, backend=backend).encode(keys, values, layer=1) for backend in ("rust", "torch")]
    assert chunks[0] == chunks[1]
    pairs = [KVCodec(basis, plan, backend=backend).decode(chunks[0]) for backend in ("rust", "torch")]
    assert torch.equal(pairs[0][0][0], pairs[1][0][0])


def test_the_reference_agrees() -> None:
    """The same section by the plain reference: the same widths, and values within a rounding of its own."""
    basis = calibrated("head", dtype=torch.float32)
    plan = basis.plan(bits=5.6, mode="fixed", method="greedy")
    keys, values = cache_of(120, seed=8)[0]
    codec = KVCodec(basis, plan)
    [(decoded, _)] = codec.decode(codec.encode(keys[:, :, 4:], values[:, :, 4:], layer=0, first=4))
    (number, group), table = next(one for one in basis.groups_of((0,)) if one[1].kind == "k" and one[1].heads == (0,)), basis.rope[0]
    budget = int(5.6 * group.n_columns)
    exact = reference.allocate(group.variances.double().tolist(), budget)
    widths = [0] * len(group.variances)
    for component, width in zip(plan.groups[number].kept.tolist(), plan.groups[number].widths.tolist(), strict=True):
        widths[component] = width
    assert sum(exact) == sum(widths)
    rows = reference.rotate(keys[0, 0, 4:].double().tolist(), range(4, 120), table.inv_freq, -1.0)
    coefficients = reference.transform(rows, group.mean.double().tolist(), group.vectors.double().tolist())
    back = reference.decode(reference.encode(coefficients, exact))
    restored = reference.restore(back, group.mean.double().tolist(), group.vectors.double().tolist())
    expected = torch.tensor(reference.rotate(restored, range(4, 120), table.inv_freq, 1.0))
    original = keys[0, 0, 4:].double()
    ours, theirs = (
        torch.nn.functional.cosine_similarity(original, one, dim=-1).mean() for one in (decoded[0, 0].double(), expected.double())
    )
    assert abs(float(ours - theirs)) <= 1e-3
    assert float(((decoded[0, 0].double() - original) ** 2).sum() / ((expected - original) ** 2).sum()) == pytest.approx(1, abs=0.1)


def test_coded_bytes_are_close_to_the_entropy_and_below_zlib() -> None:
    import zlib

    basis = calibrated("layer")
    plan = basis.plan(step=0.5)
    codec = KVCodec(basis, plan)
    keys, values = cache_of(1024, seed=6)[0]
    chunk = codec.encode(keys[:, :, 4:], values[:, :, 4:], layer=0, first=4)
    for section in chunk.rows[0]:
        group = plan.groups[section.at]
        indices = np.frombuffer(memoryview(_core.KvIndexCoder([list(t) for t in group.freqs]).decode(section.data, 1020)), np.int16)
        indices = indices.reshape(len(group.kept), 1020)
        ideal = 0.0
        for table, row in zip(group.freqs, indices, strict=True):
            radius = len(table) // 2 - 1
            for index in row.tolist():
                symbol = index + radius if abs(index) <= radius else len(table) - 1
                ideal += 12 - math.log2(table[symbol])
                if abs(index) > radius:
                    ideal += 2 * int(math.log2(abs(index) - radius)) + 2
        assert len(section.data) <= 1.01 * ideal / 8 + 64
        assert len(section.data) <= 0.92 * len(zlib.compress(np.clip(indices, -128, 127).astype(np.int8).tobytes(), 6))


@pytest.mark.parametrize("wish", [{"step": 0.25}, {"bits": 4, "mode": "fixed"}], ids=["entropy", "fixed"])
def test_odd_inputs(wish: dict[str, object]) -> None:
    basis = calibrated("layer")
    codec = KVCodec(basis, basis.plan(**wish))
    keys, values = cache_of(40, seed=2, batch=2)[0]
    for n in (0, 1, 3):
        [(k, v)] = codec.decode(codec.encode(keys[:, :, :n], values[:, :, :n], layer=0))
        assert k.shape == v.shape == (2, 2, n, 16)
    zeros = torch.zeros_like(keys)
    [(k, _)] = codec.decode(codec.encode(zeros, zeros, layer=0))
    assert bool(k.isfinite().all())
    channel = keys.clone()
    channel[..., 3] = 2.5
    [(k, _)] = codec.decode(codec.encode(channel, values, layer=0))
    assert bool(k.isfinite().all())
    huge = keys * 1e5
    [(k, _)] = codec.decode(codec.encode(huge, values, layer=0))
    assert k.shape == keys.shape
    strided = keys.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    assert codec.encode(strided, values, layer=0) == codec.encode(keys, values, layer=0)
    assert codec.encode(keys, values, layer=0, positions=torch.arange(40).flip(0)).n_tokens == 40


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_kept_exactly(bad: float) -> None:
    basis = calibrated("layer")
    codec = KVCodec(basis, basis.plan(step=0.5))
    keys, values = (state.bfloat16() for state in cache_of(20, seed=2)[0])
    keys[0, 1, 3, 4] = bad
    chunk = codec.encode(keys, values, layer=0)
    assert {section.body for section in chunk.rows[0]} == {Body.WORDS}
    [(k, v)] = codec.decode(chunk, dtype=torch.bfloat16)
    assert torch.equal(k.view(torch.int16), keys.view(torch.int16))
    assert torch.equal(v.view(torch.int16), values.view(torch.int16))


def test_damaged_bytes_are_an_error_or_other_values() -> None:
    basis = calibrated("layer")
    keys, values = cache_of(60, seed=2)[0]
    for wish in ({"step": 0.25}, {"bits": 4, "mode": "fixed"}):
        codec = KVCodec(basis, basis.plan(**wish))
        chunk = codec.encode(keys, values, layer=0)
        first, *others = chunk.rows[0]
        for end in range(0, len(first.data), 7):
            cut = type(first)(first.body, first.is_value, first.at, first.data[:end])
            with pytest.raises(CorruptError):
                codec.decode(type(chunk)(chunk.layers, 0, 60, ((cut, *others),)))
        with pytest.raises(CorruptError, match="lacks"):
            codec.decode(type(chunk)(chunk.layers, 0, 60, (tuple(others),)))


def test_a_basis_is_saved_and_loaded(tmp_path: object) -> None:
    for group in ("layer", "head", 2):
        basis = calibrated(group)
        path = tmp_path / f"{group}.safetensors"
        basis.save(path)
        again = KVBasis.load(path)
        assert again.id == basis.id
        plan = basis.plan(step=0.3)
        assert again.plan(step=0.3).id == plan.id
        plan.save(tmp_path / "plan")
        assert KVPlan.load(tmp_path / "plan").id == plan.id
    with pytest.raises(FormatError):
        KVBasis.load(tmp_path / "plan")
    with pytest.raises(FormatError):
        KVPlan.load(path)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match="id"):
        KVBasis.load(path)
    path.write_bytes(b"\x80\x04not a pickle either")
    with pytest.raises(FormatError):
        KVBasis.load(path)


def test_plans_keep_to_what_was_asked() -> None:
    basis = calibrated("layer")
    for ratio in (4, 8, 16):
        assert 0.9 * 16 / ratio < basis.plan(ratio=ratio).expected_bits <= 16 / ratio
    assert basis.plan(max_nmse=0.01).expected_nmse <= 0.01
    finer = basis.plan(step=0.5, key_weight=4.0)
    assert finer.groups[0].step == pytest.approx(basis.plan(step=0.5).groups[0].step / 2)
    for wish in (
        {},
        {"ratio": 8, "bits": 2},
        {"ratio": -1},
        {"ratio": 8, "mode": "best"},
        {"step": 0.5, "mode": "fixed"},
        {"step": 0.5, "dead_zone": 0.5},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            basis.plan(**wish)
    with pytest.raises(ValueError, match="basis"):
        KVCodec(calibrated("head"), basis.plan(step=0.5))


def test_calibration_needs_data_and_a_cache_that_can_be_coded() -> None:
    calibrator = KVCalibrator(CONFIG)
    with pytest.raises(ValueError, match="calibration data"):
        calibrator.finish()
    with pytest.raises(ValueError, match="latent attention"):
        calibrator.observe([(torch.zeros(1, 2, 8, 16), torch.zeros(1, 2, 8, 24))])
    with pytest.raises(TypeError, match="no cache"):
        calibrator.observe(7)
    with pytest.raises(ValueError, match="only a calibrator of a model"):
        calibrator.run([])
    with pytest.raises(ValueError, match="finite"):
        KVCalibrator(CONFIG).observe([(torch.full((1, 2, 8, 16), math.nan),) * 2] * 2)
    for options in ({"group": "model"}, {"group": 0}, {"rope": "maybe"}):
        with pytest.raises(ValueError, match=r"\w"):
            KVCalibrator(CONFIG, **options)


def test_rotation_is_undone_where_that_helps() -> None:
    assert calibrated("layer").rope[0] == RopeTable.from_config(CONFIG)
    plain = KVCalibrator(CONFIG).observe(cache_of(400, seed=1, rotated=False)).finish()
    assert plain.rope[0] == RopeTable.none(16)

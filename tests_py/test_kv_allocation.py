"""Bits for components, against the plain reference."""

import math
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bigsmall import OptionError  # noqa: E402
from bigsmall.kv import allocate_bits, reference  # noqa: E402
from bigsmall.kv.quantise import minmax_errors  # noqa: E402


def objective(variances: list[float], widths: list[int]) -> float:
    return math.fsum(v * 4.0**-b for v, b in zip(variances, widths, strict=True))


def test_greedy_has_the_objective_of_the_reference() -> None:
    chance = random.Random(0)
    for _ in range(150):
        variances = [2 ** chance.uniform(-14, 6) for _ in range(chance.randint(1, 10))]
        budget, max_bits = chance.randint(0, 40), chance.randint(1, 8)
        exact = reference.allocate(variances, budget, max_bits)
        for method in ("greedy", "hull", "dp"):
            widths = allocate_bits(variances, budget, max_bits, method=method).tolist()
            assert objective(variances, widths) == pytest.approx(objective(variances, exact), rel=1e-12)
            assert sum(widths) == sum(exact)


@pytest.mark.parametrize("method", ["greedy", "hull", "dp"])
def test_edges(method: str) -> None:
    def widths(variances: list[float], budget: int, max_bits: int = 16) -> list[int]:
        return allocate_bits(variances, budget, max_bits, method=method).tolist()

    assert widths([0.0] * 4, 10) == [0, 0, 0, 0]
    assert widths([1.0, 1e-30, 1e-30], 12, 8) == [8, 0, 0]
    assert widths([1.0, 1.0], 999, 5) == [5, 5]
    assert widths([1.0, 4.0], 0) == [0, 0]
    assert widths([], 5) == []
    rank_8 = [2.0**-i for i in range(8)] + [0.0] * 56
    assert sum(widths(rank_8, 358)) == 128
    assert widths([1.0, 1.0, 1.0], 4) == [2, 1, 1] or method == "dp"


def test_measured_errors_make_one_bit_worse_than_none() -> None:
    normal = torch.randn(4096, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5, 0.25])
    errors = minmax_errors(normal, 8)
    assert errors[0, 1] > errors[0, 0] > errors[0, 2] > errors[0, 8]
    widths = allocate_bits([], 6, 8, method="hull", distortion=errors)
    assert 1 not in widths.tolist()
    total = errors.double().gather(1, widths.long()[:, None]).sum()
    unit = allocate_bits([], 6, 8, method="greedy", distortion=errors)
    assert total <= errors.double().gather(1, unit.long()[:, None]).sum()


def test_what_cannot_be_is_refused() -> None:
    for arguments in [([math.nan], 4), ([math.inf], 4), ([1.0], -1), ([1.0], 4, 17)]:
        with pytest.raises(OptionError):
            allocate_bits(*arguments)
    with pytest.raises(OptionError, match="no method"):
        allocate_bits([1.0], 4, method="best")
    with pytest.raises(OptionError, match="costs"):
        allocate_bits([1.0], 4, 2, method="dp", costs=[0, 3, 2])
    with pytest.raises(OptionError, match="greedy"):
        allocate_bits([1.0], 4, 2, costs=[0, 3, 4])

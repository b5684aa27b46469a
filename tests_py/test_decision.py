"""What is picked for a model, and that less than the best is never picked in silence."""

import itertools
import json

import pytest

from bigsmall.autopilot import Decision, NoPlacementError, Wishes, decide
from bigsmall.autopilot.model import FAST, FIDELITIES, PERFECT, TINY
from bigsmall.errors import OptionError
from machines import gpu, machine, model

MACHINES = [
    machine(ram_gb=ram_gb, disk=disk, load=load, copy=copy, gpus=gpus)
    for ram_gb in (None, 0.01, 1, 16, 2000)
    for disk in (None, 5e9)
    for load, copy in ((2e7, 1e9), (3e9, 5e10))
    for gpus in ((), (gpu(),), (gpu(is_busy=True), gpu(free_gb=80, name="Other GPU")))
]
MODELS = [
    model(raw_gb, *fidelities, layer_count=layer_count)
    for raw_gb, layer_count in ((0, 0), (0.9, 32), (15, 0), (15, 32), (9000, 100))
    for fidelities in ((PERFECT,), (PERFECT, FAST, TINY), (FAST,), (FAST, TINY))
]
WISHES = [
    Wishes(mode, min_tok_s, stream) for mode in (None, "perfect", "fast", "tiny") for min_tok_s in (1.0, 1e9) for stream in (False, True)
]


def test_no_downgrade_is_silent() -> None:
    """Every machine with every model and every wish."""
    n_picks = n_lossy = n_refused = 0
    for profile, wanted, wishes in itertools.product(MACHINES, MODELS, WISHES):
        names = [variant.fidelity.name for variant in wanted.variants]
        try:
            decision = decide(profile, wanted, wishes, torch_has_cuda=True)
        except OptionError:
            assert wishes.mode not in (None, *names)
            continue
        except NoPlacementError:
            n_refused += 1
            continue
        check_what_is_said(decision)
        check_what_is_picked(decision)
        n_picks += 1
        n_lossy += not decision.pick.variant.fidelity.is_exact
    # The sweep meets all of them.
    assert min(n_picks, n_lossy, n_refused) > 500


def check_what_is_said(decision: Decision) -> None:
    fidelity, facts = decision.pick.variant.fidelity, decision.to_json()
    assert facts["bit_exact"] is fidelity.is_exact
    if fidelity.is_exact:
        assert decision.announcement is None
        assert f"Running {fidelity.name} mode (bit-exact) " in decision.lines[0]
    else:
        assert decision.lines[0] == facts["announcement"]
        assert decision.lines[0].startswith(f"NOTE: not bit-exact: {fidelity.name} mode ({fidelity.label}) ")
        assert "bit-exact)" not in decision.lines[1].partition(";")[0]
    assert all(line == line.strip() and "None" not in line for line in decision.lines)


def check_what_is_picked(decision: Decision) -> None:
    pick, wishes = decision.pick, decision.wishes
    allowed = [placement for placement in decision.considered if wishes.mode in (None, placement.variant.fidelity.name)]
    assert pick in allowed
    assert pick.fits
    assert pick.is_streamed or not wishes.stream
    assert pick.gpu is None or not pick.gpu.is_busy
    usable = [placement for placement in allowed if placement.fits and placement.tok_s >= wishes.min_tok_s]
    # The nearest to the original that is usable; if none is, the nearest that fits.
    among = usable or [placement for placement in allowed if placement.fits]
    assert FIDELITIES.index(pick.variant.fidelity) == min(FIDELITIES.index(placement.variant.fidelity) for placement in among)
    if not wishes.stream:
        assert pick.tok_s == max(placement.tok_s for placement in among if placement.variant is pick.variant)


def test_a_gpu_takes_torch() -> None:
    decision = decide(machine(gpus=(gpu(),)), model(15, PERFECT), Wishes(), torch_has_cuda=False)
    assert decision.pick.gpu is None
    assert decision.considered[0].why_not == "PyTorch with CUDA is not installed"


def test_what_fits_nowhere_tells_why() -> None:
    with pytest.raises(NoPlacementError, match=r"perfect mode, cpu_stream_disk, needs \d+\.\d\d GB of RAM, and 0\.0 MB may be taken"):
        decide(machine(ram_gb=0.01), model(15, PERFECT), Wishes())


def test_a_mode_that_the_file_has_not() -> None:
    with pytest.raises(OptionError, match="has no fast mode, only perfect"):
        decide(machine(), model(1, PERFECT), Wishes("fast"))


@pytest.mark.parametrize(
    ("profile", "raw_gb", "wishes", "placement", "words"),
    [
        (machine(), 15, Wishes(min_tok_s=0.5), "cpu_full", "in CPU RAM at full CPU speed"),
        (machine(gpus=(gpu(),)), 15, Wishes(), "gpu_full", "in the memory of Some GPU at full GPU speed"),
        (machine(gpus=(gpu(is_busy=True),)), 5, Wishes(), "cpu_full", "at full CPU speed while the GPU is busy"),
        (machine(ram_gb=24), 24, Wishes(), "cpu_stream_ram", "that is for capacity, below 1 tok/s"),
        (machine(ram_gb=8), 30, Wishes(min_tok_s=0), "cpu_stream_disk", "from the file on disk; about 0.0"),
    ],
)
def test_placements(profile, raw_gb: float, wishes: Wishes, placement: str, words: str) -> None:
    decision = decide(profile, model(raw_gb, PERFECT), wishes, torch_has_cuda=True)
    assert decision.pick.name == placement
    assert words in decision.sentence
    assert decision.announcement is None


def test_a_downgrade_names_its_reason() -> None:
    wanted = model(30, PERFECT, FAST)
    slow = decide(machine(ram_gb=16, disk=2e8), wanted, Wishes())
    assert slow.announcement is not None
    assert slow.announcement.endswith("instead of perfect mode (bit-exact), which would run at 0.01 tok/s here, below 1")
    asked = decide(machine(ram_gb=100), wanted, Wishes("fast"))
    assert asked.announcement is not None
    assert asked.announcement.endswith("as --mode fast asks for")
    assert "perfect mode (bit-exact) available with --mode perfect." in asked.sentence


def test_streaming_can_be_forced() -> None:
    decision = decide(machine(), model(1.2, PERFECT), Wishes(stream=True))
    assert decision.pick.is_streamed
    assert decision.lines[0] == "Running perfect mode (bit-exact) in CPU RAM at full CPU speed."
    instead = f"layer-streaming executor on {decision.pick.name} instead (planner's pick above: cpu_full)"
    assert decision.lines[1] == f"--stream forced: {instead}; ~{decision.pick.resident_bytes / 1e6:.1f} MB RAM resident promised"


def test_the_arithmetic_adds_up() -> None:
    facts = json.loads(json.dumps(decide(machine(gpus=(gpu(),)), model(15, PERFECT, FAST), Wishes()).to_json(), allow_nan=False))
    assert len(facts["considered"]) == 2 * 6
    for placement in facts["considered"]:
        for fit in placement["memory"]:
            assert sum(fit["terms"].values()) == fit["needed_bytes"]
            assert fit["fits"] == (fit["needed_bytes"] <= fit["budget_bytes"])
        assert placement["fits"] == (placement["why_not"] is None)
    assert all(placement["fits"] for placement in facts["alternatives"])
    assert facts["pick"] not in facts["alternatives"]


def test_what_is_assumed_is_said() -> None:
    decision = decide(machine(ram_gb=None, disk=None), model(1, PERFECT), Wishes())
    assert ["the disk could not be measured" in line or "half of it" in line for line in decision.assumptions] == [True, True]

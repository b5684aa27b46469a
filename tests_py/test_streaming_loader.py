"""Models decoded layer by layer, without a framework's model around them."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bigsmall
from bigsmall.layers import layers_of
from bigsmall.stream.ahead import Ahead
from models import Raw, llama, weights, write_model_dir, write_safetensors

torch = pytest.importorskip("torch")


def bytes_of(tensor: "torch.Tensor") -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_every_tensor_comes_once(compressed: Path, tensors: dict[str, Raw], prefetch: int) -> None:
    with bigsmall.StreamingLoader(compressed, device="cpu", prefetch=prefetch) as loader:
        assert loader.layer_count == 2
        assert loader.layer_names == ["model.layers.0", "model.layers.1"]
        seen = dict(loader.load_non_layer_tensors())
        assert set(seen) == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} == set(loader.non_layer_tensor_names)
        for i, layer in loader.iter_layers():
            assert list(layer) == loader.layer_tensor_names(i) == [name for name in tensors if f".layers.{i}." in name]
            assert not seen.keys() & layer.keys()
            seen |= layer
        assert set(loader.tensor_names) == set(seen)
        assert {name: bytes_of(tensor) for name, tensor in seen.items()} == {name: raw.data for name, raw in tensors.items()}
        assert bytes_of(loader.load_tensor("model.norm.weight")) == tensors["model.norm.weight"].data
        assert {name: bytes_of(tensor) for name, tensor in loader.load_layer(1).items()} == {
            name: raw.data for name, raw in tensors.items() if ".layers.1." in name
        }


def test_shards_are_one_model(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    with bigsmall.StreamingLoader(tmp_path / "packed") as loader:
        loaded = loader.load_non_layer_tensors()
        for _, layer in loader.iter_layers():
            loaded |= layer
    assert {name: bytes_of(tensor) for name, tensor in loaded.items()} == {name: raw.data for name, raw in tensors.items()}


@pytest.mark.parametrize(
    "pattern",
    [
        "model.layers.{}.mlp.weight",
        "layers.{}.w",
        "language_model.layers.{}.w",
        "model.language_model.layers.{}.w",
        "encoder.layers.{}.w",
        "bert.encoder.layer.{}.attention.self.query.weight",
        "vision_model.encoder.layers.{}.w",
        "visual.blocks.{}.w",
        "model.decoder.layers.{}.w",
        "transformer.h.{}.w",
        "h.{}.ln_1.weight",
        "gpt_neox.layers.{}.w",
        "transformer.blocks.{}.w",
        "backbone.layers.{}.mixer.weight",
        "rwkv.blocks.{}.w",
        "encoder.block.{}.layer.0.w",
        "transformer.layer.{}.w",
    ],
)
def test_the_usual_names_of_layers(tmp_path: Path, pattern: str) -> None:
    names = ["wte.weight", *(pattern.format(i) for i in (0, 10, 11, *range(1, 10)))]
    tensors = {name: weights("F32", 4, seed=seed) for seed, name in enumerate(names)}
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    with bigsmall.StreamingLoader(tmp_path / "a.bs") as loader:
        assert [list(layer) for _, layer in loader.iter_layers()] == [[pattern.format(i)] for i in range(12)]
        assert list(loader.load_non_layer_tensors()) == ["wte.weight"]


def test_an_encoder_comes_before_its_decoder() -> None:
    names = ["decoder.block.0.w", "decoder.block.1.w", "encoder.block.1.w", "encoder.block.0.w", "shared.weight"]
    assert list(layers_of(names)) == ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]


def test_wrong_requests(compressed: Path, tmp_path: Path) -> None:
    with bigsmall.StreamingLoader(compressed) as loader:
        for i in (-1, 2):
            with pytest.raises(IndexError, match=rf"no layer {i}: .*model.bs has 2"):
                loader.load_layer(i)
        with pytest.raises(bigsmall.MissingTensorError, match="nonsense"):
            loader.load_tensor("nonsense")
    with pytest.raises(ValueError, match="closed"):
        loader.load_tensor("model.norm.weight")
    with pytest.raises(bigsmall.OptionError, match="-1 layers"):
        bigsmall.StreamingLoader(compressed, prefetch=-1)
    with pytest.raises(FileNotFoundError):
        bigsmall.StreamingLoader(tmp_path / "none.bs")


def test_a_damaged_layer_is_told_when_it_is_reached(tmp_path: Path) -> None:
    tensors = {f"layers.{i}.w": weights("BF16", 256, 256, seed=i) for i in range(3)}
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    ((_, stop),) = bigsmall.Reader(tmp_path / "a.bs").stored_ranges(["layers.1.w"])
    data = bytearray((tmp_path / "a.bs").read_bytes())
    data[stop - 100] ^= 4
    (tmp_path / "a.bs").write_bytes(data)
    seen: list[int] = []
    with bigsmall.StreamingLoader(tmp_path / "a.bs", prefetch=2) as loader, pytest.raises(bigsmall.CorruptError) as raised:
        seen.extend(i for i, _ in loader.iter_layers())
    assert seen == [0]
    assert raised.value.tensor == "layers.1.w"


def test_a_module_is_filled(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(3))
            self.norm = torch.nn.BatchNorm1d(width)
            self.head = torch.nn.Linear(width, width, bias=False)
            self.head.weight = self.layers[0].weight
            self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)

    class More(Net):
        def __init__(self) -> None:
            super().__init__()
            self.more = torch.nn.Linear(2, 2)

    from safetensors.torch import save_model

    save_model(Net(), str(tmp_path / "net.safetensors"))
    bigsmall.compress(tmp_path / "net.safetensors", tmp_path / "net.bs")
    saved = bigsmall.load(tmp_path / "net.bs")
    with bigsmall.StreamingLoader(tmp_path / "net.bs") as loader:
        net = loader.load_model(Net)
        with pytest.raises(bigsmall.FormatError, match="its shape is"):
            loader.load_model(Net, width=8)
        with pytest.raises(bigsmall.FormatError, match="is not in the module"):
            loader.load_model(torch.nn.Linear, 2, 2)
        with pytest.raises(bigsmall.FormatError, match=r'"more.weight": is not in the file'):
            loader.load_model(More)
    state = net.state_dict()
    assert state["head.weight"].data_ptr() == state["layers.0.weight"].data_ptr()
    assert net.scale.item() == 3
    assert {name: bytes_of(tensor) for name, tensor in state.items() if name in saved} == {
        name: bytes_of(tensor) for name, tensor in saved.items()
    }
    assert torch.isfinite(net.layers[2](torch.ones(1, 16))).all()


def test_a_process_may_end_while_layers_are_decoded(compressed: Path) -> None:
    script = f"import bigsmall; i = bigsmall.StreamingLoader({str(compressed)!r}, prefetch=2).iter_layers(); next(i)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_work_ahead_is_bounded_and_never_waited_for_in_vain() -> None:
    """The published tool waits half a minute for a layer that nobody has begun."""
    made: list[tuple[int, str]] = []
    dropped: list[int] = []
    may_go_on = threading.Event()

    def make(key: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            may_go_on.wait(10)
        made.append((key, threading.current_thread().name.partition("_")[0]))
        return key * key

    ahead = Ahead(make, 2, dropped.append)
    assert ahead.take(7) == 49
    ahead.expect([1, 2, 3])
    # The thread is busy with 1; what it has not begun is made here.
    assert ahead.take(2) == 4
    assert made == [(7, "MainThread"), (2, "MainThread")]
    may_go_on.set()
    assert ahead.take(1) == 1
    ahead.expect([5, 6, 7])
    assert ahead.take(5) == 25
    ahead.expect([8])
    ahead.close()
    assert sorted(key for key, _ in made if key in (3, 7)) == [7]
    assert all(value in (36, 64) for value in dropped)
    assert ("bigsmall-ahead") in {name for _, name in made}


def test_layers_that_are_let_go_are_freed(tmp_path: Path) -> None:
    tensors = llama(n_layers=6, width=128)
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []
    with bigsmall.StreamingLoader(tmp_path / "a.bs", prefetch=1) as loader:
        for _, layer in loader.iter_layers():
            alive.append(weakref.ref(next(iter(layer.values()))))
            del layer
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

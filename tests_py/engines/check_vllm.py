"""vLLM's own source loads a model from `.bs` files: run in a process of its own, since it wants stand-ins for packages.

    python check_vllm.py ENGINES ORIGINAL PACKED TIED

ORIGINAL is the folder of a model in safetensors files, PACKED the compressed one, TIED one of a model without a head of its own. A
repository `engines/vllm` holds what PACKED holds.
"""

import os
import sys
import types
from pathlib import Path
from typing import Any

from absent_packages import stand_in

engines, original, packed, tied = sys.argv[1:]
sys.path.insert(0, engines)
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
stand_in(
    "aiohttp anthropic blake3 cachetools cbor2 cloudpickle cpuinfo depyf einops fastapi flashinfer gguf ijson lark llguidance "
    "lmformatenforcer mcp mistral_common msgspec nvtx openai openai_harmony outlines_core partial_json_parser prometheus_client pyarrow "
    "pybase64 ray setproctitle starlette tiktoken tilelang uvicorn uvloop watchfiles xgrammar zmq"
)

import pytest  # noqa: E402
import torch  # noqa: E402
import vllm.transformers_utils.config as vllm_config  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from vllm.config.load import LoadConfig  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.model_executor.model_loader import get_model_loader  # noqa: E402
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader  # noqa: E402
from vllm.plugins import load_general_plugins  # noqa: E402

from bigsmall.integrations import vllm as plugin  # noqa: E402

expected = {name: tensor for file in Path(original).glob("*.safetensors") for name, tensor in load_file(file).items()}


class Network(torch.nn.Module):
    """A model that keeps what it is given, as vLLM's models take their parts."""

    def load_weights(self, weights: Any) -> None:
        self.given = dict(weights)


def loaded(model: str, **options: Any) -> dict[str, torch.Tensor]:
    loader = get_model_loader(LoadConfig(load_format="BigSmall", **options))
    assert isinstance(loader, DefaultModelLoader)
    # It asks for the parallel setup of a running engine.
    loader._init_ep_weight_filter = lambda config: None
    config = types.SimpleNamespace(model=model, revision=None, quantization=None, multimodal_config=None, is_moe=False, model_weights="")
    loader.download_model(config)
    network = Network()
    loader.load_weights(network, config)
    return network.given


def check(given: dict[str, torch.Tensor]) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


# The entry point registers the load format, once.
load_general_plugins()
plugin.register()
check(loaded(packed))
check(loaded("engines/vllm"))

# Each of several processes gets tensors of which it decodes only its part.
plugin._n_tensor_parallel = lambda: 2
check(loaded(packed))

# Experts of other processes, and tensors that the model does not want, are not read.
source = DefaultModelLoader.Source(packed, None, prefix="model_1.", is_unused_weight=lambda name: "layers.0" in name)
loader = get_model_loader(LoadConfig(load_format="bigsmall"))
some = dict(loader._get_weights_iterator(source))
assert some.keys() == {f"model_1.{name}" for name in expected if "layers.0" not in name}

# Weights that a model takes from another place, in safetensors files.
check(dict(loader._get_weights_iterator(DefaultModelLoader.Source(original, None))))

# What vLLM reads in the headers of safetensors files: whether there is a head, and the dtypes.
for place, has_head in ((packed, True), (tied, False), ("engines/vllm", True), (original, True)):
    assert vllm_config.checkpoint_has_lm_head(place) is has_head, place
facts = vllm_config.get_safetensors_params_metadata(packed)
assert facts == vllm_config.get_safetensors_params_metadata("engines/vllm")
assert {name: (fact["dtype"], list(fact["shape"])) for name, fact in facts.items()} == {
    name: ("BF16", list(tensor.shape)) for name, tensor in expected.items()
}

# The format is found out where it is not named, and only for models of `.bs` files alone.
for model, load_format in ((packed, "bigsmall"), ("engines/vllm", "bigsmall"), (original, "auto"), ("engines/nothing", "auto")):
    arguments = EngineArgs(model=model, load_format="auto")
    try:
        arguments.create_model_config()
    except Exception as error:  # There is no device to make the rest for.
        print(f"create_model_config stopped by {type(error).__name__}: {error}")
    assert arguments.load_format == load_format, model

# A folder without weights.
empty = Path(packed).parent / "empty"
empty.mkdir()
with pytest.raises(FileNotFoundError, match="empty"):
    loaded(str(empty))

# An engine whose loader is another one is told apart.
plugin.get_loader_class.cache_clear()
DefaultModelLoader._prepare_weights = lambda self, path: None
with pytest.raises(plugin.FrameworkError, match="has no parameter model_name_or_path"):
    plugin.get_loader_class()

print("all is as it should be")

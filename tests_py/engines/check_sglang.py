"""sglang's own source loads a model from `.bs` files: run in a process of its own, since it wants stand-ins for packages.

    python check_sglang.py ENGINES ORIGINAL PACKED TIED

See `check_vllm.py` for the arguments; the repository is `engines/sglang`.
"""

import sys
from pathlib import Path
from typing import Any

import torch._dynamo
import torch._inductor.compile_fx
import transformers.image_utils
import transformers.loss.loss_utils
from absent_packages import stand_in
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoProcessor

engines, original, packed, _ = sys.argv[1:]
sys.path.insert(0, engines)
# torch and transformers look for some of these too, and have been imported before.
assert AutoModel
assert AutoProcessor
assert AutoImageProcessor
assert transformers.loss.loss_utils
assert transformers.image_utils
stand_in(
    "IPython aiohttp anthropic apache_tvm_ffi av blobfile boto3 cachetools cbor2 cloudpickle compressed_tensors cuda cutlass "
    "datasets decord easydict einops fastapi flash_attn flash_attn_4 flashinfer gguf grpc hf_transfer interegular kernels "
    "kt_kernel lark librosa llguidance mistral_common modelscope multipart nvidia nvtx openai openai_harmony orjson "
    "outlines outlines_core partial_json_parser prometheus_client pybase64 pynvml python_multipart quack ray remote_pdb "
    "sentencepiece setproctitle sgl_fa4 sgl_kernel smg_grpc_proto soundfile soxr starlette tiktoken tilelang timm torch_memory_saver "
    "torchao torchaudio torchcodec torchvision triton tvm_ffi uvicorn uvloop watchfiles websockets xatlas xgrammar zmq "
    "zstandard_ext"
)

from sglang.srt.configs.load_config import LoadConfig  # noqa: E402
from sglang.srt.model_loader import loader as sglang_loader  # noqa: E402
from sglang.srt.plugins import load_plugins  # noqa: E402
from sglang.srt.plugins.hook_registry import HookRegistry  # noqa: E402

from bigsmall.integrations import sglang as plugin  # noqa: E402

expected = {name: tensor for file in Path(original).glob("*.safetensors") for name, tensor in load_file(file).items()}

load_plugins()
assert {plugin.LOADER, *plugin.ITERATORS} <= HookRegistry._patched, "a hook has not found its place"


def check(given: dict[str, torch.Tensor]) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


class Settings:
    """What a server's options would say."""

    weight_loader_disable_mmap = False
    weight_loader_prefetch_checkpoints = False
    weight_loader_prefetch_num_threads = 1
    weight_loader_drop_cache_after_load = False
    model_checksum = None


sglang_loader.get_model = Settings
sglang_loader.get_server_args = lambda: None


def loaded(model: str, **extra: Any) -> dict[str, torch.Tensor]:
    loader = sglang_loader.DefaultModelLoader(LoadConfig(load_format="auto", model_loader_extra_config=extra))
    source = sglang_loader.DefaultModelLoader.Source(model, None, prefix="", fall_back_to_pt=True, model_config=None)
    return dict(loader._get_weights_iterator(source))


for extra in ({}, {"enable_multithread_load": False}):
    for model in (packed, original, "engines/sglang"):
        check(loaded(model, **extra))
plugin._n_tensor_parallel = lambda: 2
check(loaded(packed))
print("all is as it should be")

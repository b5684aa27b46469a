"""Opening a model that streams."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import OptionError
from ..extras import require
from ..files import StrPath
from ..repository import HUB_OPTIONS, local_copy
from .placement import Tier

if TYPE_CHECKING:
    import torch

Waiting = Literal["ram", "page-cache", "disk"]


class BigSmallStreamingModel:
    """transformers models that run from compressed weights, one decoded layer at a time."""

    @staticmethod
    def from_pretrained(
        path_or_repo: StrPath,
        device: "str | int | torch.device" = "cpu",
        *,
        model_class: Any = None,
        config_dir: StrPath | None = None,
        dtype: "torch.dtype | None" = None,
        lru_max_vram_gb: float = 0.0,
        prefetch: int | None = None,
        threads: int = 0,
        compressed_in: Waiting = "page-cache",
        ram_gb: float | None = None,
        pin_layers: Mapping[int, Tier | str] | None = None,
        **options: Any,
    ) -> Any:
        """A transformers model, to be called and to `generate` as ever, whose layers are decoded when they run.

        Logits are those of the model loaded whole, bit for bit. What is in no layer, such as embeddings and head, stays in memory. The
        model's attribute `streaming` tells what it takes and does, see `bigsmall.stream.model.Streaming`; `streaming.memory` bounds the
        memory before anything runs. It is for inference: layers have no gradients.

        >>> model = bigsmall.BigSmallStreamingModel.from_pretrained("llama-bs", lru_max_vram_gb=2)
        >>> model.generate(**tokens, max_new_tokens=20)

        Args:
            path_or_repo: the compressed directory, a `.bs` file, or a Hub repository.
            device: where the model computes.
            model_class: a class of transformers' models or one of its `Auto` classes; by default the one that the configuration names.
            config_dir: the folder or repository of the configuration, where it is not beside the weights.
            dtype: of the model, where not the configuration's; layers are then cast each time.
            lru_max_vram_gb: gigabytes (10⁹ bytes) of the device's memory for layers that stay decoded.
            prefetch: how many layers are decoded ahead, in a thread, while others compute; by default 1, or 0 on a processor all of
                whose cores torch computes on.
            threads: for decoding; 0 means one per core.
            compressed_in: where compressed layers wait: `ram`; in the system's `page-cache`, as far as it has room; or on `disk`, which
                leaves the page cache to others.
            ram_gb: gigabytes of memory for compressed layers, those beyond it being on disk; overrides `compressed_in` "ram".
            pin_layers: tiers of single layers by their number: `vram` (decoded), `ram` or `nvme` (compressed).
            options: `trust_remote_code` and others for the configuration; `revision`, `token`, `cache_dir`, `local_files_only` and
                `force_download` for the Hub.

        Raises:
            ModuleNotFoundError: PyTorch or transformers is not installed, or huggingface_hub, which a repository needs.
            FileNotFoundError: there is no such path or repository, or it holds no weights.
            FormatError: the checkpoint lacks parameters of the model.
            OptionError: a budget is negative, a tier or layer does not exist, or the model has no layers to stream or its own quantisation.
            FrameworkError: this release of transformers is not known to stream.
            VersionError, CorruptError, OSError: as `bigsmall.load`.
        """
        torch = require("torch", "torch", "a streamed model")
        require("transformers", "hf", "a streamed model")
        from .model import open_model

        if compressed_in not in ("ram", "page-cache", "disk"):
            raise OptionError(f"compressed weights wait in 'ram', 'page-cache' or on 'disk', not in {compressed_in!r}")
        for name, value in (("lru_max_vram_gb", lru_max_vram_gb), ("ram_gb", ram_gb or 0), ("prefetch", prefetch or 0)):
            if value < 0:
                raise OptionError(f"{name} is {value}, below 0")
        if ram_gb is None:
            ram_gb = float("inf") if compressed_in == "ram" else 0.0
        hub_options = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        path = local_copy(path_or_repo, beside_weights=config_dir is None, **hub_options)
        return open_model(
            path,
            model_class,
            config_dir=config_dir or (path if path.is_dir() else path.parent),
            device=torch.device(device),
            dtype=dtype,
            prefetch=prefetch,
            threads=threads,
            kept_bytes=int(lru_max_vram_gb * 1e9),
            held_bytes=int(min(ram_gb * 1e9, 1 << 62)),
            pinned={i: tier if isinstance(tier, Tier) else Tier.of(tier) for i, tier in (pin_layers or {}).items()},
            forget=compressed_in == "disk",
            options=options,
        )

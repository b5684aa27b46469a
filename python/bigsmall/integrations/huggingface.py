"""transformers.

>>> from bigsmall.integrations.huggingface import from_pretrained, install_hook
>>> model = from_pretrained("model.bs", model_class=AutoModelForCausalLM, config_dir="folder/of/the/configuration")
>>> install_hook()
>>> model = AutoModelForCausalLM.from_pretrained("folder/with/bs/files")
"""

from typing import Any

from ..files import StrPath
from ..hooks import install_hook, uninstall_hook
from ..pretrained import load_model

__all__ = ["from_pretrained", "install_hook", "load_model", "uninstall_hook"]


def from_pretrained(path: StrPath, model_class: Any = None, *, config_dir: StrPath | None = None, **options: Any) -> Any:
    """The transformers model of a `.bs` file, a folder or a Hub repository: `bigsmall.load_model` under the name that others use.

    Args:
        path: what to load.
        model_class: a class of transformers' models or one of its `Auto` classes; by default the one that the configuration names.
        config_dir: the folder or repository of the configuration; by default it is beside the weights.
        options: those of transformers' `from_pretrained`.

    Raises as `bigsmall.load_model`.
    """
    return load_model(path, model_class, config_dir=config_dir, **options)

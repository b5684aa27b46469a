"""`from_pretrained` of diffusers for `.bs` files.

diffusers asks for an index and then for a file of a certain name, and reads what it has found by the end of its name. The functions that
find give the compressed file in place of the safetensors one where that is missing, and the one that reads looks at the first bytes.
"""

from types import ModuleType

from .patches import Patches


def apply(module: ModuleType, patches: Patches) -> None:
    """Hook `diffusers.models.modeling_utils`."""

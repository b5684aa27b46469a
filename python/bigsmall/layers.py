"""What the name of a tensor tells about its place in the network."""

import re
from collections.abc import Iterable

LAYER = re.compile(
    r"(?:^|\.)(?:layers?|h|blocks?|resblocks|encoders?|decoders?|(?:single_)?transformer_blocks|down_blocks|up_blocks|resnets)\.\d+(?=\.)"
)

KINDS = (
    ("norm", re.compile(r"norm|(^|[._])ln(_|\d|\b)|(^|\.)bn\d?(\.|$)|running_(mean|var)")),
    ("embedding", re.compile(r"embed|(^|\.)(wte|wpe)(\.|$)")),
    ("attention", re.compile(r"attn|attention|(^|[._])(qkv?|k|v|o|out)_proj|query|to_[qkv]|to_out")),
    ("mlp", re.compile(r"mlp|ffn|feed_?forward|(^|\.)ff(\.|$)|(gate|up|down)_proj|intermediate|experts?|(^|\.)fc\d?(\.|$)|output\.dense")),
    ("head", re.compile(r"lm_head|classifier|pooler|(^|\.)(score|head)(\.|$)")),
    ("convolution", re.compile(r"conv")),
)


def layer_of(name: str) -> str | None:
    """The layer that a tensor belongs to, such as `model.layers.3`; None for embeddings, heads and the like.

    Known are the usual names of the repeated part: `layers.N`, `layer.N`, `h.N`, `block.N`, `blocks.N`, ... The outermost counts, so the
    experts or sub-layers of a layer are no layers of their own, while those of an encoder and a decoder are told apart.
    """
    match = LAYER.search(name)
    return None if match is None else name[: match.end()]


def kind_of(name: str) -> str:
    """`norm`, `embedding`, `attention`, `mlp`, `head`, `convolution` or `other`: a guess from the name, for tables."""
    lower = name.lower()
    return next((kind for kind, pattern in KINDS if pattern.search(lower)), "other")


def layers_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The tensors of each layer, by the layer's name, in the order in which layers run: by their numbers, an encoder's before a decoder's.

    >>> list(layers_of(["h.10.w", "h.9.w", "wte.weight"]))
    ['h.9', 'h.10']
    """
    layers: dict[str, list[str]] = {}
    for name in names:
        layer = layer_of(name)
        if layer is not None:
            layers.setdefault(layer, []).append(name)
    return dict(sorted(layers.items(), key=lambda item: _place(item[0])))


def _place(layer: str) -> tuple[bool, str, int]:
    stack, _, number = layer.rpartition(".")
    return "decoder" in stack, stack, int(number)

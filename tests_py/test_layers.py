"""Layers and kinds by the names of real checkpoints."""

import pytest

from bigsmall.layers import kind_of, layer_of


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("model.layers.31.self_attn.q_proj.weight", "model.layers.31", "attention"),
        ("model.layers.3.mlp.experts.7.w1.weight", "model.layers.3", "mlp"),
        ("model.layers.3.post_attention_layernorm.weight", "model.layers.3", "norm"),
        ("model.embed_tokens.weight", None, "embedding"),
        ("lm_head.weight", None, "head"),
        ("h.11.attn.c_attn.weight", "h.11", "attention"),
        ("h.11.ln_1.weight", "h.11", "norm"),
        ("transformer.h.0.mlp.c_fc.bias", "transformer.h.0", "mlp"),
        ("wte.weight", None, "embedding"),
        ("encoder.layer.5.attention.self.query.weight", "encoder.layer.5", "attention"),
        ("encoder.layer.5.attention.output.LayerNorm.bias", "encoder.layer.5", "norm"),
        ("encoder.layer.5.intermediate.dense.weight", "encoder.layer.5", "mlp"),
        ("encoder.layer.5.output.dense.weight", "encoder.layer.5", "mlp"),
        ("embeddings.word_embeddings.weight", None, "embedding"),
        ("pooler.dense.weight", None, "head"),
        ("encoder.block.2.layer.0.SelfAttention.q.weight", "encoder.block.2", "attention"),
        ("decoder.block.2.layer.1.EncDecAttention.q.weight", "decoder.block.2", "attention"),
        ("visual.transformer.resblocks.4.mlp.c_fc.weight", "visual.transformer.resblocks.4", "mlp"),
        ("blocks.0.norm1.weight", "blocks.0", "norm"),
        ("transformer_blocks.9.attn.to_q.weight", "transformer_blocks.9", "attention"),
        ("single_transformer_blocks.9.proj_mlp.weight", "single_transformer_blocks.9", "mlp"),
        ("down_blocks.1.resnets.0.conv1.weight", "down_blocks.1", "convolution"),
        ("batches.4", None, "other"),
    ],
)
def test_names(name: str, layer: str | None, kind: str) -> None:
    assert layer_of(name) == layer
    assert kind_of(name) == kind

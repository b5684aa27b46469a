"""Rotary embeddings undone and done again, against what models do."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from bigsmall.kv import RopeTable  # noqa: E402
from bigsmall.kv.rope import HALF, INTERLEAVED  # noqa: E402

POSITIONS = {"first": torch.arange(64), "far": torch.arange(131_008, 131_072), "wrong": torch.tensor([5, 3, 900, 0] * 16)}

SCALED = {
    "default": {"rope_type": "default", "rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 8.0, "original_max_position_embeddings": 4096},
}


def keys(head_dim: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, 64, head_dim, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("pairing", [HALF, INTERLEAVED])
@pytest.mark.parametrize(("rotary_dim", "scale"), [(64, 1.0), (32, 1.0), (64, 1.3), (0, 1.0)])
def test_redo_after_undo_is_the_identity(pairing: str, rotary_dim: int, scale: float, positions: torch.Tensor) -> None:
    table = RopeTable(tuple(10_000 ** (-2 * i / 64) for i in range(rotary_dim // 2)), 64, pairing, scale)
    states = keys()
    assert (table.redo(table.undo(states, positions), positions) - states).abs().max() <= 1e-6 * states.abs().max()
    assert torch.equal(table.undo(states, positions)[..., rotary_dim:], states[..., rotary_dim:])
    one = positions[:1]
    assert (table.redo(table.undo(states[:, :, :1], one), one) - states[:, :, :1]).abs().max() <= 1e-6 * states.abs().max()


@pytest.mark.parametrize("parameters", SCALED.values(), ids=SCALED)
def test_redo_is_what_a_llama_does(parameters: dict[str, float]) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=4, head_dim=64, rope_parameters=dict(parameters), max_position_embeddings=32_768
    )
    states = keys()
    cos, sin = LlamaRotaryEmbedding(config)(states, torch.arange(64)[None])
    turned, _ = apply_rotary_pos_emb(states, states, cos, sin)
    table = RopeTable.from_config(config)
    assert (table.redo(states, torch.arange(64)) - turned).abs().max() < 1e-4
    assert (table.scale != 1) == (parameters["rope_type"] == "yarn")


def test_redo_is_what_models_with_other_pairings_do() -> None:
    from transformers.models.cohere.modeling_cohere import CohereRotaryEmbedding
    from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as neighbours
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
    from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as partial

    states, positions = keys(), torch.arange(64)
    config = transformers.CohereConfig(hidden_size=256, num_attention_heads=4)
    turned, _ = neighbours(states, states, *CohereRotaryEmbedding(config)(states, positions[None]))
    assert (RopeTable.from_config(config).redo(states, positions) - turned).abs().max() < 1e-4
    config = transformers.GPTNeoXConfig(hidden_size=256, num_attention_heads=4)
    turned, _ = partial(states, states, *GPTNeoXRotaryEmbedding(config)(states, positions[None]))
    table = RopeTable.from_config(config)
    assert table.rotary_dim == 16
    assert (table.redo(states, positions) - turned).abs().max() < 1e-4


def test_a_model_and_its_config_have_the_same_table() -> None:
    from kv_models import demo_model

    model = demo_model()
    of_model, of_config = RopeTable.from_model(model), RopeTable.from_config(model.config)
    assert of_model.inv_freq == pytest.approx(of_config.inv_freq, rel=1e-6)
    assert (of_model.head_dim, of_model.pairing, of_model.scale) == (32, HALF, 1.0)


def test_models_without_rotation_have_none() -> None:
    table = RopeTable.from_config(transformers.GPT2Config())
    states = keys()
    assert table.redo(states, torch.arange(64)) is states


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="pairing"):
        RopeTable((1.0,), 64, "quarter")
    with pytest.raises(ValueError, match="cannot be rotated"):
        RopeTable((1.0, 1.0), 2)
    with pytest.raises(ValueError, match="finite"):
        RopeTable((float("nan"),), 64)
    odd = transformers.LlamaConfig(hidden_size=96, num_attention_heads=3)
    odd.head_dim = 33
    with pytest.raises(ValueError, match="no pairs"):
        RopeTable.from_config(odd)
    with pytest.raises(ValueError, match="coordinates"):
        RopeTable((1.0,), 64).undo(keys(32), torch.arange(64))

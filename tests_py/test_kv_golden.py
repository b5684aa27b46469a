"""A cache that was saved once is read for ever: tests/golden/kv is added to and never rewritten.

`python tests_py/test_kv_golden.py` writes what is missing.
"""

import hashlib
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from bigsmall import _core  # noqa: E402
from bigsmall.kv import KVBasis, KVPlan, TransformCodedCache  # noqa: E402
from kv_synthetic import CONFIG, cache_of, calibrated  # noqa: E402

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "kv"
WISHES = {"entropy": {"step": 0.5}, "fixed": {"bits": 4, "mode": "fixed"}, "lossless": {"mode": "lossless"}}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", WISHES)
def test_old_caches_are_read(name: str) -> None:
    manifest = json.loads((GOLDEN / "MANIFEST.json").read_text())
    files = {file: (GOLDEN / file).read_bytes() for file in ("basis.safetensors", f"{name}.plan", f"{name}.kv", f"{name}.decoded")}
    assert {file: sha256(data) for file, data in files.items()} == {file: manifest[file] for file in files}, "a golden file was rewritten"
    basis, plan = KVBasis.load(GOLDEN / "basis.safetensors"), KVPlan.from_bytes(files[f"{name}.plan"])
    cache = TransformCodedCache.load(files[f"{name}.kv"], CONFIG, basis, plan).to_dynamic()
    expected = load_file(GOLDEN / f"{name}.decoded")
    for i, layer in enumerate(cache.layers):
        for kind, states in (("k", layer.keys), ("v", layer.values)):
            # Floats of another machine may differ in the last place before they are rounded to BF16.
            assert torch.allclose(states.float(), expected[f"{kind}{i}"].float(), rtol=2**-7, atol=1e-4)
            if name == "lossless":
                assert torch.equal(states, expected[f"{kind}{i}"])
    # What is coded, byte for byte.
    reader = _core.KvReader(files[f"{name}.kv"])
    assert [sha256(reader.body(i)) for i in range(len(reader.sections()))] == manifest[f"{name} sections"]


def test_indices_of_old_caches_are_the_same_on_every_machine() -> None:
    manifest = json.loads((GOLDEN / "MANIFEST.json").read_text())
    plan = KVPlan.load(GOLDEN / "entropy.plan")
    reader = _core.KvReader(GOLDEN / "entropy.kv")
    digests = []
    for number, ((kind, _, at, _, _, n_tokens), _) in enumerate(reader.sections()):
        if kind == 3:
            coder = _core.KvIndexCoder([list(table) for table in plan.groups[at].freqs])
            indices = coder.decode(reader.body(number), n_tokens)
            assert coder.encode(indices, n_tokens) == reader.body(number)
            digests.append(sha256(bytes(memoryview(indices))))
    assert digests == manifest["entropy indices"]
    assert len(digests) == 16


def write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    path = GOLDEN / "MANIFEST.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    if not (GOLDEN / "basis.safetensors").exists():
        calibrated("layer").save(GOLDEN / "basis.safetensors")
    basis = KVBasis.load(GOLDEN / "basis.safetensors")
    for name, wish in WISHES.items():
        if (GOLDEN / f"{name}.kv").exists():
            continue
        plan = basis.plan(**wish)
        cache = TransformCodedCache(CONFIG, basis, plan, sink=4, window=16, chunk_tokens=16)
        for layer, (keys, values) in enumerate(cache_of(60, seed=11, batch=2)):
            cache.update(keys.bfloat16(), values.bfloat16(), layer)
        plan.save(GOLDEN / f"{name}.plan")
        cache.save(GOLDEN / f"{name}.kv")
        states = {
            f"{kind}{i}": one for i, layer in enumerate(cache.to_dynamic().layers) for kind, one in (("k", layer.keys), ("v", layer.values))
        }
        save_file({key: one.contiguous() for key, one in states.items()}, GOLDEN / f"{name}.decoded")
        reader = _core.KvReader(GOLDEN / f"{name}.kv")
        manifest[f"{name} sections"] = [sha256(reader.body(i)) for i in range(len(reader.sections()))]
        if name == "entropy":
            manifest["entropy indices"] = [
                sha256(bytes(memoryview(_core.KvIndexCoder([list(t) for t in plan.groups[at].freqs]).decode(reader.body(i), n))))
                for i, ((kind, _, at, _, _, n), _) in enumerate(reader.sections())
                if kind == 3
            ]
    for file in sorted(GOLDEN.iterdir()):
        if file.name != path.name:
            manifest.setdefault(file.name, sha256(file.read_bytes()))
    path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    write()

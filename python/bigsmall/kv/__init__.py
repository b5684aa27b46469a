"""Key/value caches: coded by a transform fitted to the model, as int8, or losslessly.

>>> from bigsmall.kv import KVCalibrator, TransformCodedCache
>>> basis = KVCalibrator(model).run(batches).finish()                          # once for a model
>>> plan = basis.plan(ratio=10)
>>> cache = TransformCodedCache(model.config, basis, plan)                     # a transformers cache
>>> model.generate(ids, past_key_values=cache)

Coded caches are lossy, but for the lossless plan: a tenth of the memory is bought with small errors in keys and values. `cache.stats()`
tells what was kept.
"""

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"caches of keys and values need {error.name}: pip install 'bigsmall[kv]'", name=error.name) from error

from .allocation import allocate_bits
from .basis import KVBasis
from .cache import TransformCodedCache, TransformCodedLayer
from .calibrate import KVCalibrator
from .codec import CodedChunk, KVCodec
from .int8 import Int8KVCache
from .plan import KVPlan
from .recorder import Recorder
from .rope import RopeTable
from .store import AutoKVCache, CompressedKVCache, GPUCompressedKVCache, KVStore, LossyKVCacheGPU, get_kv_cache

__all__ = [
    "AutoKVCache",
    "CodedChunk",
    "CompressedKVCache",
    "GPUCompressedKVCache",
    "Int8KVCache",
    "KVBasis",
    "KVCalibrator",
    "KVCodec",
    "KVPlan",
    "KVStore",
    "LossyKVCacheGPU",
    "Recorder",
    "RopeTable",
    "TransformCodedCache",
    "TransformCodedLayer",
    "allocate_bits",
    "get_kv_cache",
]

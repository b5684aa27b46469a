"""Text from a compressed model, loaded whole and streamed."""

from pathlib import Path
from typing import Any

from ..extras import require
from ..pretrained import load_model
from ..stream import BigSmallStreamingModel

PROMPT = "Return the"
N_TOKENS = 48


def generated(compressed: Path, config_dir: Path) -> dict[str, Any]:
    """`prompt`, and the most likely text as the model has it, `loaded` and `streamed`: in F32, so that it is the same on most processors.

    Raises ModuleNotFoundError that names what to install.
    """
    torch = require("torch", "torch", "text from the model")
    transformers = require("transformers", "hf", "text from the model")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(config_dir)
    tokens = tokenizer(PROMPT, return_tensors="pt")

    def text_of(model: Any) -> str:
        output = model.generate(**tokens, max_new_tokens=N_TOKENS, do_sample=False)
        return str(tokenizer.decode(output[0], skip_special_tokens=True))

    loaded = text_of(load_model(compressed, config_dir=config_dir, dtype=torch.float32))
    streaming = BigSmallStreamingModel.from_pretrained(compressed, config_dir=config_dir, dtype=torch.float32)
    streamed = text_of(streaming)
    streaming.streaming.close()
    return {"prompt": PROMPT, "loaded": loaded, "streamed": streamed}

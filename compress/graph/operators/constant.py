"""Arrays among an operator's attributes, which are plain values: a network is stored as these, and compared by them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from compress.graph.operators.operator import literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def packed(values: np.ndarray) -> str:
    """Real values of any shape as text, float32."""
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode()


def as_tensor(text: str, like: Tensor) -> Tensor:
    """On the device and of the dtype of another."""
    import torch

    return torch.from_numpy(unpacked(text).copy()).to(like)


def bytes_of(texts: Iterable[str]) -> int:
    """What they take in a file."""
    return sum(unpacked(text).nbytes for text in texts)


def in_torch(text: str, like: str) -> str:
    """As people write it, on the device and of the dtype of the tensor that is called `like`."""
    return f"torch.tensor({_nested(unpacked(text).tolist())}).to({like})"


def _nested(values: Any) -> str:
    return f"[{', '.join(map(_nested, values))}]" if isinstance(values, list) else literal(values)


@lru_cache(256)
def unpacked(text: str) -> np.ndarray:
    """The inverse; not to be written to."""
    import numpy as np

    values = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    values.setflags(write=False)
    return np.asarray(values)

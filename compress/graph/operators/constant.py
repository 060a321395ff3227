"""Arrays among an operator's attributes, which are plain values: a network is stored as these, and compared by them."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def packed(values: np.ndarray) -> str:
    """Real values of any shape as text, float32."""
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode()


@lru_cache(256)
def unpacked(text: str) -> np.ndarray:
    """The inverse; not to be written to."""
    import numpy as np

    values = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    values.setflags(write=False)
    return np.asarray(values)

"""One network and some images for the room's tests."""

import pytest
import torch
from tiny import TinyNet

from compress.load.trace import fold_normalisation, trace


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return fold_normalisation(trace(TinyNet().eval(), (64, 64), 0, 3, (0.485, 0.456, 0.406), (0.2, 0.2, 0.2))[0])


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

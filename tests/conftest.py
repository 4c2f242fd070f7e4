"""What all tests share: a fixed seed for torch, real photos where they are at hand, and no leftover threads."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("pseudomotion", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pseudomotion")

PHOTOS = Path(__file__).parents[2] / "shared" / "images"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def photo(request):
    """Path of a real photo; they are not part of the project."""
    path = PHOTOS / request.param
    if not path.exists():
        pytest.skip(f"real photos are not at hand (no {path})")
    return path


@pytest.fixture
def smooth():
    """Make images (B, C, H, W) in [0, 1] with structure at a few pixels' scale: differences of position show, rounding does not."""

    def make(*shape, dtype=torch.float64):
        noise = torch.rand(*shape[:2], shape[2] + 2, shape[3] + 2, dtype=torch.float64)
        return torch.nn.functional.avg_pool2d(noise, 3, 1).to(dtype)

    return make

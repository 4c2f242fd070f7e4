"""Shared by all tests: a fixed seed for torch, and pictures with structure."""

import pictures
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

settings.register_profile("pseudomotion", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pseudomotion")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def stained_glass():
    """A picture, uint8 (3, 300, 400): edges and stripes in every direction, different everywhere."""
    return pictures.stained_glass(300, 400)


@pytest.fixture
def picture_file(stained_glass, tmp_path):
    """The path of a picture, in a folder that also holds what the test makes."""
    path = tmp_path / "picture.png"
    Image.fromarray(stained_glass.permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def smooth():
    """Make images (B, C, H, W) in [0, 1] with structure at a few pixels' scale: differences of position show, rounding does not."""

    def make(*shape, dtype=torch.float64):
        noise = torch.rand(*shape[:2], shape[2] + 2, shape[3] + 2, dtype=torch.float64)
        return torch.nn.functional.avg_pool2d(noise, 3, 1).to(dtype)

    return make

"""A driver for Triton that compiles for a GPU which is not there, and counts launches instead of running them."""

import types
from collections import Counter

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class FakeDriver:
    """Everything that Triton asks of a driver between a launch and the GPU.

    Attributes:
        launches: number of launches by the name of the kernel.
        kernels: compiled kernels by name, as they were loaded. A kernel is loaded when it is first launched.

    """

    def __init__(self, generation=90):
        self.launches, self.kernels = Counter(), {}
        self.target = GPUTarget("cuda", generation, 32)
        self.utils = types.SimpleNamespace(load_binary=self.load, get_device_properties=lambda device: {"max_shared_mem": 232448})
        self.get_current_device = self.get_current_stream = lambda *device: 0
        self.get_current_target = lambda: self.target
        self.get_active_torch_device = lambda: torch.device("cpu")
        driver.set_active(self)

    def load(self, name, binary, shared, device):
        self.kernels.setdefault(name, []).append(binary)
        new = triton.__version__.split(".")[:2] >= ["3", "4"]
        return (1, 1, 32, 0, 1024) if new else (1, 1, 32, 0)

    def launcher_cls(self, source, metadata):
        """What the compiled kernel calls."""

        def launch(*arguments):
            self.launches[source.fn.__name__] += 1

        return launch

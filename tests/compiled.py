"""Program run by test_render: compiled rendering against eager. Its own process, for torch.compile cannot trace the tests' type checks."""

import sys

import torch

from pseudomotion import PMG, TRANSFORMS


def check(names, resampling, backend, size, frames):
    torch.manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.rand(8, 3, size * 2, size * 2), 3, 1)
    pmg = PMG(names, frames, size, resampling=resampling)
    plan = pmg.plan(images.shape, ids=torch.arange(8))
    compiled = torch.compile(pmg.render, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(images, plan), pmg.render(images, plan), atol=1e-5, rtol=0)


if __name__ == "__main__":
    if sys.argv[1] == "inductor":
        check(("affine",), "recursive", "inductor", 16, 2)
    else:
        # All transforms in one batch; without inductor, which would take minutes over so many unrolled recursions.
        check(tuple(TRANSFORMS), sys.argv[1], "aot_eager", 20, 3)
    sys.stdout.write("ok\n")

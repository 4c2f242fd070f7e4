"""Program run by test_render: what ``torch.compile`` makes of PMG. A separate process, because jaxtyping's checks cannot be traced."""

import sys

import torch
from torch._dynamo.utils import counters

from pseudomotion import PMG, TRANSFORMS
from pseudomotion.mix import Mixup, VideoMix
from pseudomotion.pmg_aug import PMGAug

ALL = tuple(TRANSFORMS)
images = torch.nn.functional.avg_pool2d(torch.rand(16, 3, 40, 40, generator=torch.Generator().manual_seed(0)), 3, 1)


def training_steps():
    """Every transform and every entry to drawing, in a step compiled by Inductor: the eager clips, and nothing compiled per batch."""
    pmg = PMG(ALL, 4, 20, mix=Mixup())
    aug = PMGAug(PMG(ALL, 4, 20, resampling="composed", crop=(0.3, 0.9)))
    net = torch.nn.Conv3d(3, 2, 1)

    def step(images, ids):
        clips = pmg(images * 0.5 + 0.25, ids=ids)
        mixed, info = VideoMix(mode="spatiotemporal")(clips, ids=ids)
        replaced, _ = aug(mixed, ids=ids)
        plan = pmg.plan(images.shape, ids=ids)
        return clips, mixed, replaced, info.partner_weight, plan, net(replaced).square().mean()

    compiled, seen = torch.compile(step), set()
    for batch in range(5):
        torch._dynamo.config.error_on_recompile = batch >= 2
        ids = torch.arange(16) + 16 * batch
        *expected, plan, loss = step(images, ids)
        *found, compiled_plan, compiled_loss = compiled(images, ids)
        compiled_loss.backward()
        seen |= set(plan.transform.tolist())
        pairs = zip([*found, *compiled_plan.state_dict().values()], [*expected, *plan.state_dict().values()], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        torch.testing.assert_close(compiled_loss, loss)
    assert seen == set(range(len(ALL)))
    breaks = sum(counters["graph_break"].values())
    assert breaks <= 8, counters["graph_break"]  # two for each of the four calls
    torch._dynamo.config.error_on_recompile = False


def rendering(resampling):
    """Rendering a given plan is one graph."""
    pmg = PMG(ALL, 2, 20, resampling=resampling)
    plan = pmg.plan(images.shape, ids=torch.arange(16))
    torch._dynamo.reset()  # no automatic dynamic shapes
    compiled = torch.compile(pmg.render, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images, plan), pmg.render(images, plan), atol=1e-5, rtol=0)


if __name__ == "__main__":
    training_steps()
    # All transforms in one graph, by Dynamo alone; Inductor would take minutes for it.
    rendering("recursive")
    rendering("composed")
    sys.stdout.write("ok\n")

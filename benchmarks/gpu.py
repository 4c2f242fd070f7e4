"""GPU-only figures: kernel launches, extra memory, host synchronization, and PMG's share of a training step."""

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.work import DEFAULT, Work
from pseudomotion import PMG, TRANSFORMS
from pseudomotion.mix import Mixup

DEVICE = torch.device("cuda")


def launches(function: Callable[[], Tensor]) -> int:
    """Number of kernels that one call launches, after a warm-up call that compiles them; copies are not counted."""
    function()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        function()
        torch.cuda.synchronize()
    on_device = [event for event in trace.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in on_device)


def peak_extra_bytes(function: Callable[[], Tensor]) -> int:
    """Peak memory of a call in bytes, without what was allocated before and without the clips it returns."""
    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    clips = function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before - clips.untyped_storage().nbytes()


def waits(function: Callable[[], Tensor]) -> bool:
    """Whether a call synchronizes the host with the device."""
    function()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        function()
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def figures(*, quick: bool) -> dict[str, str]:
    """All figures of this module for typical workloads, as text."""
    found = {}
    for resampling in ("composed", "recursive"):
        for batch in (32, 128):
            work = Work(
                batch, dtype_in="uint8", dtype_out="bfloat16", transforms=DEFAULT, finished=True, resampling=resampling, renderer="fused"
            )
            pmg, images, ids = work.pmg(), work.images(DEVICE), torch.arange(batch)
            function = lambda pmg=pmg, images=images, ids=ids: pmg(images, ids=ids)  # noqa: E731
            name = f"{resampling}, B = {batch}"
            found[f"launches, {name}"] = str(launches(function))
            found[f"extra memory, {name}"] = f"{100 * peak_extra_bytes(function) / work.output_bytes:.1f} % of the clips"
            found[f"the host waits, {name}"] = "yes" if waits(function) else "no"
    if quick:
        found["share of a training step"] = "not measured under --quick"
    elif find_spec("transformers") is None:
        found["share of a training step"] = "not measured: transformers is not installed"
    else:
        found["share of a training step"] = _training_share()
    return found


def _training_share() -> str:
    """PMG's share of a VideoMAE ViT-B training step in bfloat16, at the largest power-of-2 batch that fits.

    It compares steps that make clips with steps on clips made beforehand.
    """
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    model = VideoMAEForPreTraining(VideoMAEConfig()).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch, best = 16, None
    while True:
        try:
            best = batch, *_step_seconds(model, optimizer, batch)
        except torch.cuda.OutOfMemoryError:
            break
        batch *= 2
    torch.cuda.empty_cache()
    if best is None:
        return "not measured: no batch fits"
    batch, without, with_pmg = best
    return f"{100 * (with_pmg - without) / with_pmg:.2f} % (B = {batch}, {1000 * with_pmg:.0f} ms a step)"


def _step_seconds(model: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> tuple[float, float]:
    """Seconds per training step on clips made beforehand, and with PMG making the clips in the step."""
    work = Work(batch, dtype_in="uint8", dtype_out="bfloat16", transforms=DEFAULT, finished=True, renderer="fused")
    pmg, images = work.pmg(), work.images(DEVICE)
    pmg.data_format = "BTCHW"
    patches = 8 * 14 * 14
    mask = torch.zeros(batch, patches, dtype=torch.bool, device=DEVICE)
    mask[:, : patches * 9 // 10] = True
    clips = pmg(images)

    def step(clips: Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(clips, bool_masked_pos=mask).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _seconds(lambda: step(clips)), _seconds(lambda: step(pmg(images)))


def _seconds(function: Callable[[], None], rounds: int = 10) -> float:
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / rounds


def settings() -> list[dict[str, float | int | str]]:
    """Microseconds a batch of 128 clips for shapes of a program's tile, and sizes of a chunk: the best become ``launch``'s defaults."""
    from pseudomotion.render.cuda import launch
    from pseudomotion.render.output import Output

    rows: list[dict[str, float | int | str]] = []
    shapes = [(32, 32, 2), (32, 32, 1), (64, 16, 1), (32, 32, 4), (16, 64, 2)]  # rows, columns, neighboring columns of a thread
    for resampling, chunks in (("composed", (None,)), ("recursive", (None, 10, 20, 30, 43, 128))):
        for transforms in (("zoom",), ("affine",), DEFAULT):
            work = Work(128, dtype_in="uint8", dtype_out="bfloat16", transforms=transforms, resampling=resampling, renderer="fused")
            images = work.images(DEVICE)
            plan = work.pmg().plan(images.shape, ids=torch.arange(128))
            output = Output(128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), torch.bfloat16, "BCTHW")
            for (launch.ROWS, launch.COLS, launch.VEC), chunk in [(shape, None) for shape in shapes] + [(shapes[0], c) for c in chunks[1:]]:
                most = chunk or launch.chunk_size(images.device, 3, plan.frame_size, torch.bfloat16)
                packed = launch.pack(plan, output, most, bytes=True)
                packed = packed._replace(table=packed.table.pin_memory())
                seconds = _seconds(lambda work=(images, plan, packed, output): launch.run(*work))
                rows.append(
                    {
                        "resampling": resampling,
                        "transforms": "+".join(transforms),
                        "rows": launch.ROWS,
                        "columns": launch.COLS,
                        "neighbors": launch.VEC,
                        "chunk": most,
                        "microseconds": 1e6 * seconds,
                        "GB/s written": work.output_bytes / seconds / 1e9,
                    }
                )
                print(rows[-1], flush=True)
            launch.ROWS, launch.COLS, launch.VEC = shapes[0]
    return rows


def one_batch() -> None:
    """Five clips of every transform, mixed, in both modes, for compute-sanitizer."""
    images = torch.randint(0, 256, (5, 3, 250, 230), dtype=torch.uint8, device=DEVICE)
    for resampling in ("composed", "recursive"):
        PMG(tuple(TRANSFORMS), 4, 112, resampling=resampling, mix=Mixup(), renderer="fused")(images, ids=torch.arange(5))
    torch.cuda.synchronize()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--settings", type=Path, help="measure tiles and chunks; write JSON here")
    parser.add_argument("--figures", type=Path, help="measure launches, memory, waiting and the share of a training step; write JSON here")
    parser.add_argument("--one-batch", action="store_true", help="render five clips, for compute-sanitizer")
    options = parser.parse_args()
    if options.one_batch:
        one_batch()
    for path, measure in ((options.settings, settings), (options.figures, lambda: figures(quick=False))):
        if path is not None:
            path.write_text(json.dumps(measure(), indent=1))

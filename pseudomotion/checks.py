"""Validation of user input. Every error names the argument, the value received and the values allowed."""

import math
import multiprocessing
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = (torch.uint8, *FLOATS)
CHANNELS = (1, 3, 4)
LARGEST_SIDE = 2**15
MOST_FRAMES = 4096

Number = TypeVar("Number", int, float)


def one_of(name: str, value: Any, options: tuple[str, ...]) -> str:
    """A string that must be one of the options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return str(value)


def integer(name: str, value: Any, allowed: str = "an int") -> int:
    """An integer of any integer type, such as numpy's, but not a bool."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be {allowed}, got {value!r}") from None


def bounded_int(name: str, value: Any, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``."""
    number = integer(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {number}")
    return number


def positive_int(name: str, value: Any, largest: int) -> int:
    """An integer from 1 to ``largest``."""
    return bounded_int(name, value, 1, largest)


def number(name: str, value: Any) -> float:
    """A real number, NaN and infinity included."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except TypeError:
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def probability(value: Any, name: str = "p") -> float:
    """A number from 0 to 1."""
    p = number(name, value)
    if not 0 <= p <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value!r}")
    return p


def weights(name: str, value: Mapping[Any, Any] | Sequence[Any]) -> tuple[float, ...]:
    """The weights of a mapping's keys, or equal ones of a sequence's entries, scaled to a sum of 1."""
    found = [number(name, w) for w in value.values()] if isinstance(value, Mapping) else [1.0] * len(value)
    if not all(0 <= w < math.inf for w in found) or sum(found) <= 0:
        raise ValueError(f"{name} must have weights of at least 0, not all 0, got {found}")
    return tuple(w / sum(found) for w in found)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def pair(name: str, value: Any, kind: Callable[[str, Any], Number], allowed: str) -> tuple[Number, Number]:
    """Two numbers from any sequence, such as a list or Hydra's ListConfig; ``kind`` is ``integer`` or ``number``."""
    if _is_sequence(value) and len(value) == 2:
        with suppress(TypeError):
            return kind(name, value[0]), kind(name, value[1])
    raise TypeError(f"{name} must be {allowed}, got {value!r}")


def interval(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """A pair of numbers in ascending order, from ``low`` to ``high``."""
    first, last = pair(name, value, number, "a pair of numbers (low, high)")
    if not low <= first <= last <= high:
        raise ValueError(f"{name} must be a pair (low, high) with {low:g} <= low <= high <= {high:g}, got {value!r}")
    return first, last


def frame_size(size: Any) -> tuple[int, int] | None:
    """``(h, w)`` from an int or a pair, or None."""
    if size is None:
        return None
    sides = size if _is_sequence(size) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"size must be an int, a pair (h, w) or None, got {size!r}")
    h, w = (positive_int("size", side, LARGEST_SIDE) for side in sides)
    return h, w


def item_size(size: Any) -> tuple[int, int]:
    """``(h, w)`` from an int or a pair."""
    sides = frame_size(size)
    if sides is None:
        raise ValueError("size must be an int or a pair (h, w), got None")
    return sides


def crop(value: Any) -> tuple[float, float] | None:
    """``(min_scale, max_scale)``, fractions of an area, or None."""
    if value is None:
        return None
    low, high = pair("crop", value, number, "a pair (min_scale, max_scale) or None")
    if not 0 < low <= high <= 1:
        raise ValueError(f"crop must satisfy 0 < min_scale <= max_scale <= 1, got {value!r}")
    return low, high


def seed(value: Any) -> int:
    """A signed or unsigned 64-bit integer; 0 for None."""
    if value is None:
        return 0
    value = integer("seed", value, "an int or None")
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"seed must fit in 64 bits, got {value}")
    return value


def normalization(mean: Any, std: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation per channel, of values in [0, 1]; both or neither."""
    mean, std = (None if value is None else _per_channel_numbers(name, value) for name, value in (("mean", mean), ("std", std)))
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std must be given together, got mean={mean!r}, std={std!r}")
    if mean is None or std is None:
        return None, None
    if len(mean) not in CHANNELS or len(std) != len(mean):
        raise ValueError(f"mean and std must have one value per channel (1, 3 or 4), got {len(mean)} and {len(std)}")
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise ValueError(
            f"mean must be from 0 to 1, and std greater than 0 and at most 1, got mean={mean}, std={std}; "
            "they apply to values in [0, 1], so divide statistics of 8-bit values by 255"
        )
    return mean, std


def _per_channel_numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        return tuple(number(name, channel) for channel in value)
    except TypeError:
        remedy = f"; for RGB images write {name}=({value}, {value}, {value})" if isinstance(value, (int, float)) else ""
        raise TypeError(f"{name} must be a sequence of numbers, one per channel, got {value!r}{remedy}") from None


def output_dtype(dtype: Any, *, normalized: bool) -> torch.dtype | None:
    """A dtype that clips can have, or None for the default."""
    if dtype is None:
        return None
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))} or None, got {dtype!r}")
    if normalized and dtype == torch.uint8:
        raise ValueError("dtype must be a float type if mean and std are given: uint8 cannot hold normalized values")
    return dtype


def shape(value: Any) -> tuple[int, int, int, int]:
    """``(B, C, H, W)``, the shape of a batch of images."""
    if isinstance(value, Tensor):
        raise TypeError(f"shape must be four numbers (B, C, H, W), such as images.shape, got a tensor of shape {tuple(value.shape)}")
    sides = tuple(value)
    if len(sides) != 4:
        remedy = f"; for a single image pass image{axes}" if (axes := _axes(sides)) else ""
        if len(sides) == 5:
            remedy = "; clips cannot be images; PMGAug and Mixup take clips"
        raise ValueError(f"images must have shape (B, C, H, W), got {len(sides)} dimensions: {sides}{remedy}")
    b, c, h, w = sides
    if c not in CHANNELS:
        remedy = f"; for channels last pass images{axes}" if (axes := _axes(sides)) else ""
        raise ValueError(f"images must have 1, 3 or 4 channels in (B, C, H, W), got {c} in {sides}{remedy}")
    if not (1 <= h <= LARGEST_SIDE and 1 <= w <= LARGEST_SIDE):
        raise ValueError(f"images must have sides from 1 to {LARGEST_SIDE} pixels, got {h} x {w} in {sides}")
    return b, c, h, w


def images(value: Any) -> None:
    """Check that a tensor has a dtype and shape ``(B, C, H, W)`` of images."""
    if not isinstance(value, Tensor):
        raise TypeError(f"images must be a torch.Tensor of shape (B, C, H, W), got {type(value).__name__}{_remedy(value)}")
    if value.dtype not in DTYPES:
        raise TypeError(f"images must be uint8 or float, got {value.dtype}{_REMEDIES.get(value.dtype, '')}")
    shape(value.shape)
    if not torch.compiler.is_compiling():
        has_values(value)
        not_forked(value.device)
        not_captured(value.device)


_REMEDIES = {torch.bool: "; pass images.float()"} | dict.fromkeys(
    (torch.int8, torch.int16, torch.int32, torch.int64), "; pass images.to(torch.uint8) if their values are from 0 to 255"
)


def has_values(value: Tensor) -> None:
    """Refuse tensors that are not arrays of pixels in memory."""
    if value.is_meta:
        raise ValueError("images are on the meta device, which holds no pixels; make clips of images on the CPU or a CUDA device")
    if value.layout != torch.strided:
        raise ValueError(f"images must be dense, got the layout {value.layout}; pass images.to_dense()")


def _remedy(value: Any) -> str:
    """How to make images of what is no tensor, if that is known."""
    kind = type(value)
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, Tensor) for item in value):
            return "; pass torch.stack(images) if they are of one shape"
        if isinstance(value[0], (list, tuple)):
            return ""
        remedy = _remedy(value[0]).removeprefix("; pass ").removesuffix("[None]")
        name = "path" if isinstance(value[0], (str, os.PathLike)) else "image"
        return f"; pass torch.stack([{remedy} for {name} in images])" if remedy else ""
    if kind.__module__ == "numpy":
        return f"; pass torch.from_numpy({'images' if value.ndim == 4 else 'image'}){_axes(value.shape)}"
    if kind.__module__.startswith("PIL."):
        return '; pass torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]'
    if isinstance(value, (str, os.PathLike)):
        return "; pass pseudomotion.images.load_image(path)[None]"
    return ""


def _axes(sides: Sequence[int]) -> str:
    """What turns an array of another order of axes into ``(B, C, H, W)``, if that is known."""
    if len(sides) == 4 and sides[-1] in CHANNELS and sides[1] not in CHANNELS:
        return ".permute(0, 3, 1, 2)"
    if len(sides) == 3:
        return ".permute(2, 0, 1)[None]" if sides[-1] in CHANNELS and sides[0] not in CHANNELS else "[None]"
    return "[None, None]" if len(sides) == 2 else ""


def clips(value: Any) -> None:
    """Check that a tensor has a dtype and number of dimensions of clips."""
    if not isinstance(value, Tensor):
        raise TypeError(f"clips must be a torch.Tensor of 5 dimensions, got {type(value).__name__}")
    if value.dtype not in DTYPES:
        raise TypeError(f"clips must be uint8 or float, got {value.dtype}")
    if value.ndim != 5:
        raise ValueError(f"clips must have shape (B, C, T, h, w) or (B, T, C, h, w), got {tuple(value.shape)}")
    not_forked(value.device, "clips")


def alike(name: str, value: Any, of: str, model: Tensor) -> None:
    """Check that a tensor has the shape, dtype and device of ``model``, the argument named ``of``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, as {of}, got {type(value).__name__}")
    for what in ("shape", "dtype", "device"):
        if getattr(value, what) != getattr(model, what):
            raise ValueError(f"{name} must have the {what} of {of}, {getattr(model, what)}, got {getattr(value, what)}")


def not_forked(device: torch.device, what: str = "images") -> None:
    """Raise a clear error if CUDA is used in a forked process, where it would fail with an obscure one."""
    forked = getattr(multiprocessing.context, "ForkProcess", ())
    if device.type == "cuda" and isinstance(multiprocessing.current_process(), forked):
        raise RuntimeError(
            f"{what} are on a CUDA device in a forked worker process, where CUDA does not work. Make clips in the main process, "
            "after the DataLoader; or on the CPU in the worker; or start workers with multiprocessing_context='spawn'."
        )


def not_captured(device: torch.device) -> None:
    """Raise an error while a CUDA graph is captured: every replay would repeat the motion of the captured batch."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "images are on a CUDA device whose stream captures a graph. Motion is drawn on the host, so every replay would repeat the same "
            "clips. Make clips outside the graph, and copy them into the tensor that the graph reads."
        )


def values(value: Tensor) -> Tensor:
    """Float images in [0, 1]. Small excursions, as resizing can cause, are clamped. Synchronizes with the device."""
    if not value.numel():
        return value
    low, high = (float(v) for v in value.detach().aminmax())
    if low >= 0 and high <= 1:
        return value
    tolerance = max(1e-5, 2 * torch.finfo(value.dtype).eps)
    if not (low >= -tolerance and high <= 1 + tolerance):
        raise ValueError(
            f"float images must lie in [0, 1], got values from {low:.9g} to {high:.9g}; "
            "divide by 255, clamp, or pass uint8 (PMG applies mean and std itself)"
        )
    return value.clamp(0, 1)


def _int64(name: str, value: Any) -> None:
    if isinstance(value, Tensor) and value.dtype == torch.int64:
        return
    if isinstance(value, Tensor):
        raise TypeError(f"{name} must be an int64 tensor, got {value.dtype}; pass {name}.long()")
    given = f"[{name}]" if isinstance(value, int) else name
    raise TypeError(f"{name} must be an int64 tensor, got {type(value).__name__}; pass torch.tensor({given})")


def ids(value: Any, batch: int) -> Tensor:
    """The clip ids of a batch, on the CPU; None draws them from torch's default CPU generator."""
    if value is None:
        return torch.randint(0, 2**63 - 1, (batch,), dtype=torch.int64, device="cpu")
    _int64("ids", value)
    if tuple(value.shape) != (batch,):
        raise ValueError(f"ids must have shape ({batch},), one for each image, got {tuple(value.shape)}")
    return value.to("cpu")


def item_ids(value: Any) -> list[int]:
    """Ids of a source's items as a list: int64 ``(B,)``, none negative."""
    _int64("ids", value)
    if value.ndim != 1:
        raise ValueError(f"ids must have shape (B,), got {tuple(value.shape)}")
    numbers: list[int] = value.tolist()
    if numbers and min(numbers) < 0:
        raise ValueError(f"ids must be at least 0, got {min(numbers)}")
    return numbers


def item_indices(value: Any, length: int | None) -> Tensor:
    """Item indices ``id % length``, int64 ``(B,)`` on the CPU; if ``length`` is None, the ids themselves."""
    item_ids(value)
    ids: Tensor = value.to("cpu")
    return ids if length is None else ids % length


def per_channel(name: str, value: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    """A tuple with one value per image channel, or None."""
    if value is not None and len(value) != channels:
        raise ValueError(f"{name} has {len(value)} values, but images have {channels} channels")
    return value


def rank(value: Any, world_size: Any) -> None:
    """Check that a process's rank lies in ``range(world_size)``."""
    bounded_int("world_size", world_size, 1, 2**31)
    if not 0 <= bounded_int("rank", value, -(2**31), 2**31) < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {value}")

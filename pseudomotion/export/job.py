"""``Export``: the clips of an export, and how one shard of them is rendered and written."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pseudomotion import checks
from pseudomotion.dataset import check_source, image_classes, needs_partners, partner_ids, shown_image
from pseudomotion.export.encode import Piece, encode_clip, encode_flow, encode_instances, encode_tracks, npz
from pseudomotion.export.plans import Planned, save_plans
from pseudomotion.export.settings import Settings
from pseudomotion.export.shards import FolderShard, TarShard, on_disk
from pseudomotion.files import whole_file
from pseudomotion.labels import boxes, flow, instances, occlusion, tracks
from pseudomotion.plan import MotionPlan
from pseudomotion.pmg import PMG
from pseudomotion.source import ImageSource, order
from pseudomotion.transforms import ALL_TRANSFORMS

__all__ = ["Export", "Written"]

WORK = ("read", "render", "annotate", "encode", "write")
Seconds = dict[str, float]
CLIPS, PLANS, RECORDS = "clips", "plans", "records"  # folders of an export


class Written(NamedTuple):
    """Size of one shard, and the time that it took."""

    clips: int
    size: int  # bytes of the files, as the disk counts them
    seconds: dict[str, float]  # by kind of work: read, render, annotate, encode, write
    skipped: dict[int, str]  # errors of images that could not be read, by index


class Export:
    """Clips of a source's images as files: a pure function of the arguments. Shards can be written in any order, on any machine.

    Clip ``k`` is made of the k-th id in the source's drawn order (``pseudomotion.images.batches``), epoch after epoch, and of that id's
    motion, so any process can write any shard, and write it again.

    Args:
        source: images, on the CPU.
        pmg: makes the clips; without normalization.
        out: folder of the export.
        settings: what to write.
        textures: uint8 ``(M, C, H', W')``, what objects show, as for ``PMG``, such as ``load_textures`` gives. None: parts of other images.
        device: where clips are rendered.
        batch_size: clips that are rendered at a time; changes no pixel.

    Raises:
        TypeError, ValueError: for a source or a ``PMG`` that this cannot be.

    Example:
        >>> from pseudomotion import PMG
        >>> from pseudomotion.export import Export, Settings, prepare, write_list
        >>> from pseudomotion.images import ImageFolder
        >>> export = Export(ImageFolder("photos", 48), PMG(num_frames=4, size=32), "clips", Settings(clips=8, shard_size=4))
        >>> prepare(export)
        >>> written = [export.write(shard) for shard in export.missing(export.part(1, 1))]
        >>> write_list(export, relative=True).read_text().splitlines()[0]
        'clips/00000/00000000.mp4 2'

    """

    def __init__(
        self,
        source: ImageSource,
        pmg: PMG,
        out: str | Path,
        settings: Settings,
        *,
        textures: UInt8[Tensor, "M C H W"] | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 32,
    ) -> None:
        if not isinstance(pmg, PMG):
            raise TypeError(f"pmg must be a PMG, got {type(pmg).__name__}")
        if pmg.mean is not None or pmg.dtype not in (None, torch.uint8) or pmg.data_format != "BCTHW":
            raise ValueError("pmg must make uint8 clips (B, C, T, h, w): leave out mean, std, dtype and data_format")
        if pmg.size is None:
            raise ValueError("pmg must have a size, got None")
        if settings.format == "mp4" and settings.pixel_format == "yuv420p" and any(side % 2 for side in pmg.size):
            raise ValueError(f"size must be even for yuv420p, which halves the color, got {pmg.size}; or choose yuv444p, webp or png")
        if settings.annotations and pmg.num_frames < 2:
            raise ValueError("annotations need clips of at least two frames, got num_frames=1")
        if not len(check_source(source)):
            raise ValueError("source must hold at least one image, got none")
        if settings.label == "class" and image_classes(source) is None:
            raise ValueError(f"label must not be 'class': images of {type(source).__name__} have no classes")
        if settings.label == "transform" and any(type(transform) not in ALL_TRANSFORMS.values() for transform in pmg.transforms):
            raise ValueError(f"label must not be 'transform' where a transform is not one of {', '.join(ALL_TRANSFORMS)}")
        self.source, self.pmg, self.out, self.settings = source, pmg, Path(out), settings
        self.device = torch.device(device)
        self.batch_size = checks.positive_int("batch_size", batch_size, 2**20)
        self.textures = None if textures is None else textures.to(self.device)
        self.has_partners = needs_partners(pmg, textures)
        shape = None if textures is None else textures.shape
        pmg.plan((1, 3, *pmg.size), ids=torch.zeros(1, dtype=torch.int64), partner_images=self.has_partners, textures=shape)  # or refuse
        self.shards = TarShard if settings.tar else FolderShard
        self._order: tuple[int, Tensor] | None = None  # the epoch whose order was needed last

    # Which clips -----------------------------------------------------------------------------------------------------------------------

    def part(self, part: int, parts: int) -> list[int]:
        """The shards of one of ``parts`` parts, counted from 1. Parts are disjoint, and together all shards.

        Raises:
            ValueError: for a part outside 1 to ``parts``.

        """
        if not 1 <= part <= parts:
            raise ValueError(f"part must be from 1/{parts} to {parts}/{parts}, got {part}/{parts}")
        return list(range(part - 1, self.settings.num_shards, parts))

    def path(self, shard: int) -> Path:
        """The folder or the tar file of a shard's clips. It appears last: where it exists, the shard is complete."""
        return self.out / CLIPS / f"{shard:05d}{'.tar' if self.settings.tar else ''}"

    def missing(self, shards: list[int]) -> list[int]:
        """The shards that are not written yet."""
        return [shard for shard in shards if not self.path(shard).exists()]

    def ids(self, numbers: range) -> Int64[Tensor, " n"]:
        """The ids of clips: of their images, and of their motion."""
        n, found = len(self.source), []
        for epoch in range(numbers[0] // n, numbers[-1] // n + 1):
            first, last = max(numbers[0] - epoch * n, 0), min(numbers[-1] + 1 - epoch * n, n)
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, order(self.source, epoch, self.pmg.seed)
            found.append(self._order[1][first:last])
        return torch.cat(found)

    def planned(self, shard: int) -> Planned:
        """The plan of a shard's clips. Only one image is read, for its size."""
        ids = self.ids(self.settings.numbers(shard))
        images = self.source.get(ids[:1])
        shape = None if self.textures is None else self.textures.shape
        plan = self.pmg.plan((len(ids), *images.shape[1:]), ids=ids, partner_images=self.has_partners, textures=shape)
        if not self.has_partners:
            return Planned(plan, ids, len(ids))
        return Planned(plan, torch.cat([ids, partner_ids(ids, self.pmg)]), len(ids))

    # One shard -------------------------------------------------------------------------------------------------------------------------

    def write(self, shard: int, *, progress: Callable[[int], object] | None = None) -> Written:
        """Make and write one shard. It appears whole or not at all, and replaces an older one.

        Args:
            shard: from 0.
            progress: called with the number of clips after every batch.

        Raises:
            OSError, ValueError: if a file cannot be written, or no image be read.

        """
        begin, seconds = time.perf_counter(), dict.fromkeys(WORK, 0.0)
        numbers, planned = self.settings.numbers(shard), self.planned(shard)
        records: list[dict[str, Any]] = []
        with self.shards.create(self.path(shard)) as files:
            for record, pieces in self._clips(numbers, planned, seconds):
                files.add(record, pieces)
                records.append(record)
                if progress is not None and (len(records) % self.batch_size == 0 or len(records) == len(numbers)):
                    progress((len(records) - 1) % self.batch_size + 1)
            for folder in (self.out / PLANS, self.out / RECORDS):
                folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.plans_path(shard)) as temporary:
                save_plans(temporary, planned)
            with whole_file(self.records_path(shard)) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        size = files.size + sum(on_disk(path.stat().st_size) for path in (self.plans_path(shard), self.records_path(shard)))
        seconds["write"] = time.perf_counter() - begin - sum(seconds.values())  # also until the files are on the disk
        return Written(len(records), size, dict(seconds), dict(getattr(self.source, "skipped", {})))

    def plans_path(self, shard: int) -> Path:
        """The file of a shard's plans, for ``load_plans``."""
        return self.out / PLANS / f"{shard:05d}.safetensors"

    def records_path(self, shard: int) -> Path:
        """The file that says what a shard's clips are: a JSON object per line."""
        return self.out / RECORDS / f"{shard:05d}.jsonl"

    def sample(self, shard: int, count: int) -> float:
        """Mean bytes on disk per clip, with its annotations, plan and record, measured on some clips of a shard; nothing is written."""
        planned = self.planned(shard)
        chosen = planned.select(torch.arange(min(count, planned.count), device="cpu"))
        made = list(self._clips(self.settings.numbers(shard)[: chosen.count], chosen, dict.fromkeys(WORK, 0.0)))
        pieces = sum(self.shards.room(record, files) for record, files in made)
        plans = sum(tensor.numel() * tensor.element_size() for tensor in chosen.plan.state_dict().values())
        return (pieces + plans + sum(len(json.dumps(record)) for record, _ in made)) / chosen.count

    def _clips(self, numbers: range, planned: Planned, seconds: Seconds) -> Iterator[tuple[dict[str, Any], list[Piece]]]:
        """Every clip's record and files, in order."""
        for rows in torch.split(torch.arange(planned.count, device="cpu"), self.batch_size):
            begin = time.perf_counter()
            part = planned.select(rows)
            images = self.source.get(part.ids)
            read = time.perf_counter()
            clips = self._render(images, part)
            rendered = time.perf_counter()
            annotations = self._annotate(part.plan)
            annotated = time.perf_counter()
            for name, spent in (("read", read - begin), ("render", rendered - read), ("annotate", annotated - rendered)):
                seconds[name] += spent
            for i, record in enumerate(self._records([numbers[row] for row in rows.tolist()], part)):
                begin = time.perf_counter()
                frames = clips[i].permute(1, 2, 3, 0).contiguous().numpy()  # (T, h, w, 3)
                pieces = [*encode_clip(frames, self.settings)]
                pieces += self._encode_annotations(frames, {name: [a[i].numpy() for a in arrays] for name, arrays in annotations.items()})
                seconds["encode"] += time.perf_counter() - begin
                yield record, pieces

    def _render(self, images: UInt8[Tensor, "n 3 H W"], part: Planned) -> UInt8[Tensor, "b 3 T h w"]:
        images = images.to(self.device)
        own, partners = images[: part.count], images[part.count :]
        shown = partners if len(partners) else None
        return self.pmg.render(own, part.plan, partner_images=shown, textures=self.textures).cpu()

    def _annotate(self, plan: MotionPlan) -> dict[str, list[Tensor]]:
        """The arrays of the annotations, of every clip of a plan; partners may follow."""
        textures = None if self.textures is None else self.textures.cpu()
        makers: dict[str, Callable[[], list[Tensor]]] = {
            "flow": lambda: [flow(plan, textures=textures), occlusion(plan, textures=textures)],
            "tracks": lambda: [*tracks(plan, textures=textures)],
            "instances": lambda: [instances(plan, textures=textures)],
            "boxes": lambda: [*boxes(plan, textures=textures)],
        }
        return {name: makers[name]() for name in self.settings.annotations}

    def _encode_annotations(self, frames: UInt8[np.ndarray, "T h w 3"], arrays: dict[str, list[np.ndarray]]) -> Iterator[Piece]:
        """The files of one clip's annotations."""
        if "flow" in arrays:
            yield from encode_flow(arrays["flow"][0], arrays["flow"][1], self.settings.flow_format)
        if "tracks" in arrays:
            yield encode_tracks(frames, arrays["tracks"][0], arrays["tracks"][1])
        if "instances" in arrays:
            yield from encode_instances(arrays["instances"][0])
        if "boxes" in arrays:
            yield Piece("boxes", None, "npz", npz(**dict(zip(("visible", "amodal", "share"), arrays["boxes"], strict=True))))

    def _records(self, numbers: list[int], part: Planned) -> list[dict[str, Any]]:
        names, transforms = list(ALL_TRANSFORMS), part.plan.transform.tolist()
        classes = image_classes(self.source) if self.settings.label == "class" else None
        records = []
        for number, id_, transform in zip(numbers, part.ids.tolist(), transforms, strict=False):
            image = shown_image(self.source, id_)
            label = transform if self.settings.label == "transform" else 0 if classes is None else classes(image)
            name = names[transform] if transform >= 0 else "custom"
            records.append({"key": f"{number:08d}", "id": id_, "image": image, "transform": name, "label": label})
        return records

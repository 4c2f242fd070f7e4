"""An export over a cluster with Ray Data: every task writes one folder or tar file of clips, wherever it runs.

    python export_ray.py FOLDER_OF_IMAGES OUT CLIPS

OUT lies on storage that all nodes share. Run it again after a failure: what is there is not written again. Needs ``pip install '.[ray]'``.
"""

import sys

import ray

from pseudomotion import PMG
from pseudomotion.export import Export, Settings, prepare, write_list
from pseudomotion.images import ImageFolder


def export(images: str, out: str, clips: int, *, size: int = 224, num_frames: int = 16, **settings) -> None:
    job = Export(ImageFolder(images, size * 8 // 7), PMG(num_frames=num_frames, size=size), out, Settings(clips=clips, **settings))
    prepare(job)
    todo = job.missing(job.part(1, 1))
    if todo:
        shared = ray.put(job)  # sent to each node once

        def write(row: dict) -> dict:
            written = ray.get(shared).write(int(row["item"]))
            return {"clips": written.clips, "bytes": written.size}

        rows = ray.data.from_items(todo, override_num_blocks=len(todo)).map(write).take_all()
        print(f"{sum(row['clips'] for row in rows)} clips, {sum(row['bytes'] for row in rows) / 1e6:.3g} MB")
    print(f"{write_list(job)}: all {clips} clips are there")


if __name__ == "__main__":
    ray.init()
    export(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""PMG as a transform of an MMAction2 pipeline: a decoded image becomes the frames of a clip.

train_pipeline = [
    dict(type="PseudoMotion", num_frames=16, size=224),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
"""

import numpy as np
import torch
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from pseudomotion import PMG
from pseudomotion.images import load_image


@TRANSFORMS.register_module()
class PseudoMotion(BaseTransform):
    """Reads ``results["filename"]``, an image, and sets "imgs", a list of T frames (h, w, 3) in uint8, and what later transforms ask for.

    MMEngine tells a transform the sample's number but not the epoch, so the epoch's part of the id is drawn from NumPy's generator,
    which MMEngine seeds in every worker.
    """

    def __init__(self, num_frames: int = 16, size: int = 224, **options) -> None:
        self.pmg = PMG(num_frames=num_frames, size=size, **options)

    def transform(self, results: dict) -> dict:
        image = load_image(results["filename"])
        id_ = results.get("sample_idx", 0) + (np.random.randint(2**31) << 31)  # noqa: NPY002  MMEngine's generator
        clip = self.pmg(image[None], ids=torch.tensor([id_]))[0]  # (3, T, h, w)
        frames = list(clip.permute(1, 2, 3, 0).contiguous().numpy())  # T of (h, w, 3)
        shape = {"img_shape": frames[0].shape[:2], "original_shape": tuple(image.shape[1:])}
        return results | shape | {"imgs": frames, "clip_len": len(frames), "num_clips": 1, "frame_interval": 1, "modality": "RGB"}

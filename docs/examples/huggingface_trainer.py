"""VideoMAE pre-training with transformers' own ``Trainer``, on clips that PMG makes on the GPU."""

from pathlib import Path

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer

from pseudomotion import PMG, Mixup
from pseudomotion.draws import Draws
from pseudomotion.images import ImageSource
from pseudomotion.train.videomae.masking import tube_mask


class ImagesById(Dataset):
    """Images by id, which goes on counting from epoch to epoch: ``id % len(images)`` is the image."""

    def __init__(self, images: ImageSource) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, id_: int) -> dict:
        return {"image": self.images.get(torch.tensor([id_]))[0], "id": id_}


class ClipIds(Sampler):
    """Ids in another order in every epoch. Trainer calls ``set_epoch``."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch))
        return iter((order + self.epoch * self.n).tolist())


def collate(items: list[dict]) -> dict:
    """Ids stay a list: tensors would be moved to the GPU, and PMG plans on the CPU."""
    return {"images": torch.stack([item["image"] for item in items]), "ids": [item["id"] for item in items]}


class PMGTrainer(Trainer):
    """Makes clips and masks of a batch where the model is.

    First trap: a dataset's indices repeat in every epoch, and so would the clips. So the ids come from the sampler.
    Second trap: Trainer 5.23 resumes by putting the file of a checkpoint into the model as it is, but ``save_pretrained`` writes VideoMAE's
    biases by the names of earlier versions, and these are dropped. So a checkpoint is read by ``from_pretrained``.
    """

    def __init__(self, model, args, images: ImageSource, **more) -> None:
        args.remove_unused_columns = False
        super().__init__(model=model, args=args, train_dataset=ImagesById(images), data_collator=collate, **more)
        config = model.config
        imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        self.pmg = PMG(num_frames=config.num_frames, size=config.image_size, mix=Mixup(), data_format="BTCHW", **imagenet)

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        return ClipIds(len(self.train_dataset))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        config, ids = self.model.config, torch.tensor(inputs["ids"])
        slices, patches = config.num_frames // config.tubelet_size, (config.image_size // config.patch_size) ** 2
        mask = tube_mask(Draws(0, ids), slices, patches, 0.75).to(inputs["images"].device)
        outputs = model(pixel_values=self.pmg(inputs["images"], ids=ids), bool_masked_pos=mask)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        saved = type(self.model).from_pretrained(Path(resume_from_checkpoint))
        self.model.load_state_dict(saved.state_dict())

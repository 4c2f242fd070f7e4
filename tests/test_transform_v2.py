"""PseudoMotion by torchvision's v2 protocol: on plain tensors anywhere, and with torchvision itself where it can be imported."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pseudomotion import PMG, Mixup, PseudoMotion
from pseudomotion.images import builtin_picture
from pseudomotion.labels import warp_labels

try:
    from torchvision import tv_tensors
    from torchvision.transforms import v2
except (ImportError, RuntimeError):  # RuntimeError: built for another torch
    tv_tensors = v2 = None

needs_torchvision = pytest.mark.skipif(v2 is None, reason="torchvision cannot be imported beside this torch")
IMAGE = builtin_picture(40, 60)


def clip_of(pmg, id_, image=IMAGE):
    """(T, C, h, w), by the public interface."""
    return pmg(image[None], ids=torch.tensor([id_]))[0].transpose(0, 1)


@pytest.mark.parametrize("image", [IMAGE, IMAGE / 255, Image.fromarray(IMAGE.permute(1, 2, 0).numpy())], ids=["uint8", "float", "PIL"])
def test_an_image_becomes_the_clip_of_its_id(image):
    pmg = PMG(num_frames=4, size=16)
    transform, wanted = PseudoMotion(pmg), clip_of(pmg, 7, IMAGE / 255 if torch.is_tensor(image) and image.is_floating_point() else IMAGE)
    assert torch.equal(transform(image, id=7), wanted)
    sample = {"label": 3, "id": 7, "deep": [("text", image)], "none": None}
    out = transform(sample)
    assert torch.equal(out["deep"][0][1], wanted)
    assert (out["label"], out["id"], out["deep"][0][0], out["none"]) == (3, 7, "text", None)
    assert torch.equal(PseudoMotion(pmg, id_key="number")({"image": image, "number": 7, "id": 1})["image"], wanted)
    image_, label = transform(image, 5, id=7)
    assert torch.equal(image_, wanted)
    assert label == 5
    assert not torch.equal(transform({"image": image, "id": 8})["image"], wanted)


def test_the_protocol_is_that_of_torchvision():
    """``make_params`` gets the inputs that are transformed, ``transform`` each of them with what it decided; only one tensor is."""
    transform = PseudoMotion(PMG(num_frames=4, size=16))
    params = transform.make_params([IMAGE])
    assert torch.equal(transform.transform(IMAGE, params), transform.transform(IMAGE, params))
    second = torch.rand(3, 5, 5)
    assert transform(IMAGE, second)[1] is second
    assert torch.equal(PseudoMotion(PMG(num_frames=4, size=16, data_format="BTCHW"))(IMAGE, id=3), transform(IMAGE, id=3))


def test_without_ids_motion_is_drawn_from_torchs_generator():
    transform, clips = PseudoMotion(PMG(num_frames=4, size=16)), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        clips.append(transform(IMAGE))
    assert torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])


class Pictures(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.transform({"image": IMAGE.roll(index, -1), "id": index})


def test_a_sample_is_the_same_in_any_worker():
    pmg = PMG(num_frames=4, size=16)
    for workers in (0, 2):
        batch = next(iter(DataLoader(Pictures(PseudoMotion(pmg)), 6, num_workers=workers)))
        assert batch["image"].shape == (6, 4, 3, 16, 16)
        assert all(torch.equal(batch["image"][k], clip_of(pmg, k, IMAGE.roll(k, -1))) for k in range(6))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PseudoMotion("zoom"), TypeError, "pmg must be a PMG"),
        (lambda: PseudoMotion(PMG(mix=Mixup())), ValueError, "of one image each, without mix"),
        (lambda: PseudoMotion(PMG(("zoom", "cutmix"))), ValueError, "of one image each, without cutmix"),
        (lambda: PseudoMotion(PMG())({"text": "x"}), TypeError, "the sample must hold an image"),
        (lambda: PseudoMotion(PMG())(IMAGE[None]), ValueError, r"the image must have shape \(C, H, W\), got \(1, 3, 40, 60\)"),
        (lambda: PseudoMotion(PMG())({"image": IMAGE, "id": "a"}), TypeError, r"sample\['id'\] must be an int"),
        (lambda: PseudoMotion(PMG())([Image.new("RGB", (9, 9))] * 2), ValueError, "the sample must hold one image, got 2"),
    ],
)
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


@needs_torchvision
def test_with_torchvision_a_sample_moves_as_one():
    """Among its other transforms: an image becomes a Video; mask, boxes and key points follow its pixels."""
    pmg = PMG(("affine", "sliding_window"), num_frames=4, size=(20, 30), resampling="composed")
    square = torch.zeros(3, 40, 60, dtype=torch.uint8)
    square[:, 14:24, 20:34] = 255
    sample = {
        "image": tv_tensors.Image(square),
        "mask": tv_tensors.Mask((square[:1] > 0).to(torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes([[20.0, 14.0, 14.0, 10.0]], format="XYWH", canvas_size=(40, 60)),
        "points": tv_tensors.KeyPoints([[[27.0, 19.0], [20.0, 14.0]]], canvas_size=(40, 60)),
        "id": 3,
    }
    pipeline = v2.Compose([PseudoMotion(pmg), v2.ToDtype(torch.float32, scale=True)])
    seen = 0
    for id_ in range(12):
        out = pipeline(sample | {"id": id_})
        assert type(out["image"]) is tv_tensors.Video
        torch.testing.assert_close(out["image"].as_subclass(torch.Tensor), clip_of(pmg, id_, square) / 255)
        assert type(out["mask"]) is tv_tensors.Mask
        assert out["mask"].shape == (4, 1, 20, 30)
        assert type(out["points"]) is tv_tensors.KeyPoints
        assert out["points"].shape == (4, 1, 2, 2)
        assert out["points"].canvas_size == (20, 30)
        assert len(out["boxes"]) == 4
        for t, boxes in enumerate(out["boxes"]):
            assert type(boxes) is tv_tensors.BoundingBoxes
            assert (boxes.format, boxes.canvas_size) == (tv_tensors.BoundingBoxFormat.XYWH, (20, 30))
            bright = out["image"][t, 0] > 0.5
            if bright[[0, -1]].any() or bright[:, [0, -1]].any() or not bright.any():
                continue  # it leaves the frame
            seen += 1
            assert (bright != (out["mask"][t, 0] > 0)).float().mean() < 0.03
            rows, columns = (axis.nonzero()[:, 0] for axis in (bright.any(1), bright.any(0)))
            left, top, width, height = boxes[0].tolist()  # of the turned square's corners, so it may be larger by a little
            assert abs(left - float(columns[0])) < 1.5
            assert abs(top - float(rows[0])) < 1.5
            assert abs(left + width - float(columns[-1]) - 1) < 1.5
            assert abs(top + height - float(rows[-1]) - 1) < 1.5
            center = torch.stack([(columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2])
            assert (out["points"][t, 0, 0] - center).abs().max() < 1.5
    assert seen > 10


@needs_torchvision
def test_with_torchvision_the_edges_of_pixels_lie_at_integers():
    """The whole image is the box (0, 0, W, H) there, and (-0.5, -0.5, W - 0.5, H - 0.5) here."""
    pmg = PMG(("identity",), num_frames=2, size=(20, 30))
    whole = tv_tensors.BoundingBoxes([[0.0, 0.0, 60.0, 40.0]], format="XYXY", canvas_size=(40, 60))
    points = tv_tensors.KeyPoints([[0.0, 0.0], [60.0, 40.0]], canvas_size=(40, 60))
    _, boxes, moved = PseudoMotion(pmg)(tv_tensors.Image(IMAGE), whole, points)
    assert boxes[1].tolist() == [[0, 0, 30, 20]]
    assert moved[1].tolist() == [[0, 0], [30, 20]]
    centers = warp_labels(pmg.plan((1, 3, 40, 60)), points=torch.tensor([[-0.5, -0.5]])).points
    np.testing.assert_allclose(centers[0, 1], [[-0.5, -0.5]])

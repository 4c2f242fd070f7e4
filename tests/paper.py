"""The figures of the paper, written from its tables and not from the recipes."""

# A table, its columns, and row after row.
PAPER = """
Table 2: ucf101 hmdb51
Baseline (Identity) = 72.7 35.6
Sliding Window = 75.1 40.5
Zoom-in/out = 81.2 44.5
Fade-in/out = 76.3 34.1
Affine = 80.5 43.2
Perspective = 82.7 45.9
Color Jitter = 76.2 38.7
CutMix = 76.8 45.1
Table 3: hmdb51
Zoom-in/out + Affine = 51.8
Zoom-in/out + Perspective = 45.2
Zoom-in/out + CutMix = 41.4
Affine + Perspective = 50.5
Affine + CutMix = 47.1
Perspective + CutMix = 44.2
Zoom-in/out + Affine + Perspective = 49.0
Zoom-in/out + Affine + CutMix = 49.4
Zoom-in/out + Perspective + CutMix = 47.2
Affine + Perspective + CutMix = 42.0
Zoom-in/out + Affine + Perspective + CutMix = 47.9
Table 4: hmdb51 ucf101
no video augmentation = 51.8 83.8
Mixup = 55.9 87.3
VideoMix = 53.0 85.2
Table 5: hmdb51 ucf101
HMDB51 to HMDB51 = 55.9 -
UCF101 to HMDB51 = 56.7 -
UCF101 to UCF101 = - 87.3
HMDB51 to UCF101 = - 85.5
Table 6: ucf101 hmdb51
FT data = 87.3 55.9
ImageNet, 10,000 = 87.4 58.0
ImageNet, 100,000 = 89.2 59.2
PASS, 10,000 = 87.6 58.3
PASS, 100,000 = 89.3 60.0
Table 7: ucf101 hmdb51
FT data = 87.3 55.9
FractalDB, 10,000 = 77.6 42.8
FractalDB, 100,000 = 78.1 41.1
Shaders1k, 10,000 = 88.4 57.6
Shaders1k, 100,000 = 89.6 59.7
Visual Atom, 10,000 = 83.5 48.9
Visual Atom, 100,000 = 82.6 48.2
Table 8: hmdb51 ucf101
real video = 62.6 91.3
pseudo motion = 55.9 87.3
real video + pseudo motion = 64.6 92.2
Table 9: hmdb51
Videos = 62.6
Videos + frames = 64.6
Videos + frames + PASS = 68.0
Videos + frames + Shaders1k = 67.0
Videos + frames + PASS + Shaders1k = 67.9
Table 10: ucf101 hmdb51 diving48
from scratch = 51.4 18.0 17.9
MoCo v3 (ViT-B), FT data = 81.7 39.2 -
VideoMAE, FT data = 91.3 62.6 79.3
VideoMAE, Kinetics400 = 96.1 73.3 -
VideoMAE, VPN = 64.9 30.3 17.5
3D-ResNet50, VPN = 49.9 23.0 -
3D-ResNet50, VPN to Kinetics400 = 89.9 61.8 -
TimeSformer, IN-21k to SynAPT = 89.0 54.4 44.9
PPMA, NH-Kinetics + SynAPT = 92.5 71.2 64.0
MoSI (R-2D3D), FT data = 71.8 47.0 -
MoSI (R(2+1)D), FT data = 82.8 51.8 -
MoSI (ViT-B) = 48.0 27.3 14.2
SP (ViT-B), IN-21k = 71.9 34.0 34.2
SP (ViT-B), ExFractalDB-21k = 61.5 20.8 28.0
SP (ViT-B), VisualAtom-21k = 58.9 20.3 21.4
Ours, frames from FT data = 87.3 55.9 68.3
Ours, PASS = 89.3 60.0 69.2
Ours, Shaders1k = 89.4 59.7 72.3
Table 11: ucf101 hmdb51 mini-ssv2 diving48 ikeafa uav-human
TimeSformer, IN-21k + Synthetic = 89.0 54.4 51.1 44.9 63.6 25.9
PPMA, NH-Kinetics + Synthetic = 92.5 71.2 67.8 64.0 67.9 38.5
Ours, no extra data = 87.3 55.9 69.0 68.3 61.4 36.8
Ours, Shaders1k = 89.4 59.7 68.3 72.3 60.7 40.0
Table 12: kinetics400 kinetics400_top-5
from scratch = 68.8 -
VideoMAE, K400 = 81.5 95.1
Ours, frames from K400 = 74.8 92.0
Ours, Shaders1k = 74.7 91.9
Table 13: hmdb51 ucf101
(i) Large = 32.9 68.7
(ii) Medium = 33.5 71.0
(iii) Small = 32.2 69.3
Figure 3a: hmdb51
HMDB51 = ?
Shaders1k = ?
Figure 3b: hmdb51
PASS = ?
Shaders1k = ?
Figure 3c: hmdb51
IN-1k = ?
Shaders1k = ?
Figure 4: hmdb51 ucf101
pseudo motion = ? ?
VideoMAE, real video = ? ?
"""


def paper():
    """The table above: figures by table and row."""
    found, table, columns = {}, "", []
    for line in PAPER.strip().splitlines():
        if "=" not in line:
            table, names = line.split(": ")
            columns = [name.replace("_", " ") for name in names.split()]
            continue
        row, numbers = line.split(" = ")
        values = {c: None if n == "?" else float(n) for c, n in zip(columns, numbers.split(), strict=True) if n != "-"}
        found[f"{table}, {row}"] = values
    return found

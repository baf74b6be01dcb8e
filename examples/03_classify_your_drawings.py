"""Classify drawings of your own: python 03_classify_your_drawings.py SHOWN_FOLDER ASKED_FOLDER, up to five shown."""

import sys
from pathlib import Path

import torch

import torchplastic as tp
from torchplastic.data.classes import read_drawing

shown, asked = (sorted(Path(folder).glob("*.png")) for folder in sys.argv[1:3])
network = tp.pretrained("omniglot")
pictures, questions = (torch.stack([read_drawing(path) for path in paths]) for paths in (shown, asked))
for path, chances in zip(asked, network.classify(pictures, torch.arange(len(shown)), questions), strict=True):
    print(f"{path.name} looks like {shown[chances.argmax()].name} ({chances.max():.0%})")

"""Classify your own drawings: python 03_classify_your_drawings.py SUPPORT_FOLDER QUERY_FOLDER.

The first folder holds one drawing of each class, up to five; those of the second are classified.
"""

import sys
from pathlib import Path

import torch

import torchplastic as tp
from torchplastic.data.classes import read_drawing

support, query = (sorted(Path(folder).glob("*.png")) for folder in sys.argv[1:3])
network = tp.pretrained("omniglot")
pictures, queries = (torch.stack([read_drawing(path) for path in paths]) for paths in (support, query))
for path, chances in zip(query, network.classify(pictures, torch.arange(len(support)), queries), strict=True):
    print(f"{path.name} looks like {support[chances.argmax()].name} ({chances.max():.0%})")

"""Classify your own drawings: python 03_classify_your_drawings.py [SUPPORT_FOLDER QUERY_FOLDER].

SUPPORT_FOLDER holds one drawing of each class, up to five; the drawings in QUERY_FOLDER are classified. Without
arguments the program draws five glyphs twice, into a temporary folder, and classifies those.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image

import torchplastic as tp
from torchplastic.data.classes import read_drawing, synthetic_glyphs


def draw_glyphs(folder):
    """One drawing of each of five glyphs in folder/support, another in folder/query."""
    glyphs = synthetic_glyphs(62)
    for number, name in enumerate(("support", "query")):
        (folder / name).mkdir()
        for glyph in range(5):
            picture = 255 - glyphs.pictures[glyphs.first[glyph] + number].numpy()  # black ink on white paper
            Image.fromarray(picture).save(folder / name / f"glyph_{glyph}.png")
    return folder / "support", folder / "query"


parser = argparse.ArgumentParser(usage="%(prog)s [SUPPORT_FOLDER QUERY_FOLDER]")
parser.add_argument("folders", nargs="*", type=Path, help="one drawing of each class; the drawings to classify")
folders = parser.parse_args().folders
if len(folders) not in (0, 2):
    parser.error(f"expected two folders, or none to try synthetic glyphs; got {len(folders)}")
if not folders:
    folders = draw_glyphs(Path(tempfile.mkdtemp(prefix="glyphs-")))
    print(f"no folders given: synthetic glyphs, drawn into {folders[0].parent}")

support, query = (sorted(folder.glob("*.png")) for folder in folders)
network = tp.pretrained("omniglot")
if not 1 <= len(support) <= network.ways or not query:
    parser.error(f"expected 1 to {network.ways} and at least 1 PNG drawings; got {len(support)} and {len(query)}")
try:
    pictures, queries = (torch.stack([read_drawing(path) for path in paths]) for paths in (support, query))
except ValueError as error:  # a file that is no picture
    parser.error(str(error))
for path, chances in zip(query, network.classify(pictures, torch.arange(len(support)), queries), strict=True):
    print(f"{path.name} looks like {support[chances.argmax()].name} ({chances.max():.0%})")

"""Learn to classify from one example, on your own pictures: python 04_few_shot_on_your_folder.py [FOLDER].

FOLDER has a folder for each class. Training never uses a third of the classes; the network is tested on those. Without
an argument the program draws 45 glyphs, six times each, into a temporary folder.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image

import torchplastic as tp
from torchplastic.data.classes import read_folder, synthetic_glyphs
from torchplastic.tasks.omniglot import FewShot, FewShotEpisodes


def draw_glyphs(folder):
    """Six drawings of each of 45 glyphs, a folder for each glyph."""
    glyphs = synthetic_glyphs(62)
    for glyph in range(45):
        (folder / glyphs.names[glyph]).mkdir()
        for number in range(6):
            picture = 255 - glyphs.pictures[glyphs.first[glyph] + number].numpy()  # black ink on white paper
            Image.fromarray(picture).save(folder / glyphs.names[glyph] / f"{number}.png")
    return folder


parser = argparse.ArgumentParser()
parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a folder for each class, with pictures")
folder = parser.parse_args().folder
if folder is None:
    folder = draw_glyphs(Path(tempfile.mkdtemp(prefix="glyphs-")))
    print(f"no folder given: synthetic glyphs, drawn into {folder}")

torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
try:
    classes = read_folder(folder, side=31)
    for_test = torch.arange(len(classes)) % 3 == 0
    training = FewShotEpisodes(FewShot(ways=3, queries=3), classes.part(~for_test, "training"))
    test = FewShotEpisodes(FewShot(ways=3), classes.part(for_test, "test"))
except ValueError as error:  # no classes, too few of them, or a file that is no picture
    parser.error(str(error))
network = tp.PlasticClassifier(features=32, ways=3, eta=0.5)
torch.nn.init.uniform_(network.head.alpha)
adam = torch.optim.Adam(network.parameters(), lr=2e-3)
for update in range(301):
    if update % 100 == 0:
        with torch.no_grad():
            episodes = test.episodes(500, generator)
            right = (episodes.answer(network).argmax(-1) == episodes.target).float().mean()
        print(f"update {update:3d}  right on classes not used in training {right:.1%}")
    episodes = training.episodes(16, generator)
    loss = torch.nn.functional.cross_entropy(episodes.answer(network).flatten(0, 1), episodes.target.flatten())
    adam.zero_grad()
    loss.backward()
    adam.step()

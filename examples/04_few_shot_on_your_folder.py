"""Learn to classify from one example, on pictures of your own: python 04_few_shot_on_your_folder.py FOLDER.

FOLDER has a folder for each class. A third of the classes is never trained on: on those the network is tested.
"""

import sys
from pathlib import Path

import torch

import torchplastic as tp
from torchplastic.data.classes import read_folder
from torchplastic.tasks.omniglot import FewShot, FewShotEpisodes

torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
classes = read_folder(Path(sys.argv[1]), side=31)
for_test = torch.arange(len(classes)) % 3 == 0
training = FewShotEpisodes(FewShot(ways=3, queries=3), classes.part(~for_test, "training"))
test = FewShotEpisodes(FewShot(ways=3), classes.part(for_test, "test"))
network = tp.PlasticClassifier(features=32, ways=3, eta=0.5)
torch.nn.init.uniform_(network.head.alpha)
adam = torch.optim.Adam(network.parameters(), lr=2e-3)
for update in range(301):
    if update % 100 == 0:
        with torch.no_grad():
            episodes = test.episodes(500, generator)
            right = (episodes.answer(network).argmax(-1) == episodes.target).float().mean()
        print(f"update {update:3d}  right on classes that are never trained on {right:.1%}")
    episodes = training.episodes(16, generator)
    loss = torch.nn.functional.cross_entropy(episodes.answer(network).flatten(0, 1), episodes.target.flatten())
    adam.zero_grad()
    loss.backward()
    adam.step()

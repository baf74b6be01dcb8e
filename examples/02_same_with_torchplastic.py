"""The same task, network and numbers as 01_whole_method.py, with the layer in one line."""

import torch

import torchplastic as tp

BITS, PATTERNS, BATCH, UPDATES = 30, 2, 32, 300


def episode():
    """Show each pattern for 4 steps, with 2 dark steps after it; then show one for 4 steps with half its bits dark."""
    patterns = torch.randint(0, 2, (PATTERNS, BATCH, BITS)) * 2.0 - 1
    shown = torch.cat([part for p in patterns for part in (p.expand(4, -1, -1), torch.zeros(2, BATCH, BITS))])
    target = patterns[torch.randint(PATTERNS, (BATCH,)), torch.arange(BATCH)]
    dark = torch.rand(BATCH, BITS).argsort(-1) < BITS // 2
    return torch.cat([shown, target.masked_fill(dark, 0).expand(4, -1, -1)]), target


torch.manual_seed(0)
rnn = tp.PlasticRNN(None, BITS, eta=0.05)  # input_size=None: one input line per neuron
adam = torch.optim.Adam(rnn.parameters(), lr=0.01)
for update in range(1, UPDATES + 1):
    shown, target = episode()
    y, state = rnn(shown, clamp=shown != 0)
    loss = ((y[-1] - target) ** 2).sum(-1).mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    if update == 1 or update % 50 == 0:
        error = (y[-1].sign() != target).float().mean()
        print(f"update {update:4d}   squared error {loss:7.3f}   wrong bits {100 * error:5.1f} %")

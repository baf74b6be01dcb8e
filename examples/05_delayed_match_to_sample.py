"""Delayed match-to-sample: a pattern, a delay without input, then a second pattern. Are the two the same?

python 05_delayed_match_to_sample.py          a plastic network of 64 neurons: seconds, and 10 to 20 more at first use
python 05_delayed_match_to_sample.py --lstm   torch.nn.LSTM of 64 cells instead, with the same task and readout

Every episode has new random patterns, so fixed weights cannot store them: the network must remember what it has just
seen. An LSTM as PyTorch initialises it stays at chance; one whose forget gates start open (--open-lstm) learns it too.
"""

import argparse
import time

import torch

import torchplastic as tp

BITS, SHOWN, DELAY, HIDDEN, BATCH = 16, 3, 10, 64, 32


def open_lstm():
    """An LSTM whose forget gates start open, so that its memory outlasts the delay."""
    lstm = torch.nn.LSTM(BITS, HIDDEN)
    lstm.bias_ih_l0.data[HIDDEN : 2 * HIDDEN] += 1
    return lstm


LAYERS = {
    "plastic": lambda: tp.PlasticRNN(BITS, HIDDEN),
    "fixed": lambda: tp.PlasticRNN(BITS, HIDDEN, alpha="none"),  # the same network without plasticity
    "lstm": lambda: torch.nn.LSTM(BITS, HIDDEN),
    "open-lstm": open_lstm,
    "gru": lambda: torch.nn.GRU(BITS, HIDDEN),
    "rnn": lambda: torch.nn.RNN(BITS, HIDDEN),
}


def episodes(count):
    """`count` episodes `[steps, count, bits]`, and whether sample and test match, as in half of them."""
    sample, other = torch.randint(0, 2, (2, count, BITS)) * 2.0 - 1
    match = torch.rand(count) < 0.5
    test = torch.where(match.unsqueeze(1), sample, other)
    delay = torch.zeros(DELAY, count, BITS)
    return torch.cat([sample.expand(SHOWN, -1, -1), delay, test.expand(SHOWN, -1, -1)]), match.long()


parser = argparse.ArgumentParser()
layer = parser.add_mutually_exclusive_group()
for name in LAYERS:
    layer.add_argument(f"--{name}", dest="layer", action="store_const", const=name, default="plastic")
parser.add_argument("--updates", type=int, default=400)
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)  # enough for 64 neurons, and faster on a busy machine
torch.manual_seed(args.seed)
rnn, readout = LAYERS[args.layer](), torch.nn.Linear(HIDDEN, 2)
parameters = [*rnn.parameters(), *readout.parameters()]
adam = torch.optim.Adam(parameters, lr=args.lr)
start = time.perf_counter()
for _ in range(args.updates):
    x, match = episodes(BATCH)
    loss = torch.nn.functional.cross_entropy(readout(rnn(x)[0][-1]), match)
    adam.zero_grad()
    loss.backward()
    adam.step()
seconds = time.perf_counter() - start
with torch.no_grad():
    x, match = episodes(2000)
    right = (readout(rnn(x)[0][-1]).argmax(-1) == match).float().mean()
size = sum(p.numel() for p in parameters)
print(f"{args.layer}: {right:.1%} of 2000 new episodes after {args.updates} updates, ", end="")
print(f"{seconds:.1f} s, {size:,} parameters")

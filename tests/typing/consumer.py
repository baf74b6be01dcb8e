"""A user's program as mypy sees it: public names have types, and none of these is Any. Checked by `make lint`."""

from typing import assert_type

import torch
from torch import Tensor

import torchplastic as tp

rnn = tp.PlasticRNN(8, 32, rule="oja", alpha="neuron")
assert_type(rnn, tp.PlasticRNN)
assert_type(tp.PlasticRNNCell(8, 32), tp.PlasticRNNCell)
assert_type(tp.PlasticLinear(8, 5), tp.PlasticLinear)
assert_type(tp.PlasticClassifier(), tp.PlasticClassifier)
assert_type(tp.LSTM(8, 32), tp.LSTM)
assert_type(tp.pretrained("omniglot"), tp.PlasticClassifier)

y, state = rnn.forward(torch.zeros(5, 4, 8))
assert_type(y, Tensor)
assert_type(state, tp.PlasticState)
assert_type(state.detach(), tp.PlasticState)
assert_type(state.hidden, Tensor)

"""The whole method in plain PyTorch: gradient descent trains a network to memorise new patterns at first sight.

x(t) = tanh(x(t-1) (w + alpha * H(t))),  and H(t+1) = H(t) + eta (x(t-1) (x) x(t) - H(t)): the Hebbian trace, which
starts at zero in each episode. A shown bit sets its neuron (Miconi, Stanley and Clune 2018, eq. 1 and 2).
"""

import torch

BITS, PATTERNS, BATCH, UPDATES = 30, 2, 32, 300


def episode():
    """Show each pattern for 4 steps, with 2 dark steps after it; then show one for 4 steps with half its bits dark."""
    patterns = torch.randint(0, 2, (PATTERNS, BATCH, BITS)) * 2.0 - 1
    shown = torch.cat([part for p in patterns for part in (p.expand(4, -1, -1), torch.zeros(2, BATCH, BITS))])
    target = patterns[torch.randint(PATTERNS, (BATCH,)), torch.arange(BATCH)]
    dark = torch.rand(BATCH, BITS).argsort(-1) < BITS // 2
    return torch.cat([shown, target.masked_fill(dark, 0).expand(4, -1, -1)]), target


torch.manual_seed(0)
w = (0.01 * torch.randn(BITS, BITS)).requires_grad_()
alpha = (0.01 * torch.randn(BITS, BITS)).requires_grad_()
eta = torch.tensor(0.05, requires_grad=True)
adam = torch.optim.Adam([w, alpha, eta], lr=0.01)
for update in range(1, UPDATES + 1):
    shown, target = episode()
    x, H = torch.zeros(BATCH, BITS), torch.zeros(BATCH, BITS, BITS)
    for bits in shown:
        before = x
        x = torch.where(bits != 0, bits, torch.tanh((before.unsqueeze(1) @ (w + alpha * H)).squeeze(1)))
        H = (1 - eta) * H + eta * before.unsqueeze(2) * x.unsqueeze(1)
    loss = ((x - target) ** 2).sum(-1).mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    if update == 1 or update % 50 == 0:
        error = (x.sign() != target).float().mean()
        print(f"update {update:4d}   squared error {loss:7.3f}   wrong bits {100 * error:5.1f} %")

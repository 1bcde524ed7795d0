import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_green.callbacks.pruning import Pruning
from lightning_green.compression.pruning import removable_widths, remove_channels, slice_optimizer
from lightning_green.compression.pruning.optimizer_states import check_states
from tests.helpers.compression_fits import Lit, loader, trainer
from tests.helpers.extras import needs_torch_pruning

SLICED = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "Adadelta": torch.optim.Adadelta,
    "Adafactor": torch.optim.Adafactor,
    "Adagrad": torch.optim.Adagrad,
    "Adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "Adamax": torch.optim.Adamax,
    "AdamW": torch.optim.AdamW,
    "ASGD": torch.optim.ASGD,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "Rprop": torch.optim.Rprop,
}


class OfHuggingFace(torch.optim.SGD):
    """The factored state of the Adafactor of Hugging Face, which lacks dimensions."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.dim() > 1:
                    squares = p.grad.square()
                    self.state[p]["exp_avg_sq_row"] = squares.mean(-1)
                    self.state[p]["exp_avg_sq_col"] = squares.mean(-2)


class Shampoo(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            self.state[p]["left"] = torch.eye(len(p)) if p.dim() > 1 else torch.zeros(())


def network(square=False):
    torch.manual_seed(0)
    hidden = 8 if square else 16
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, hidden, 3), nn.Flatten(), nn.Linear(4 * hidden, 4))


def step(net, optimizer):
    optimizer.zero_grad()
    net(torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


def cut(net, optimizer):
    before = dict(net.named_parameters())
    inputs = (torch.randn(1, 3, 6, 6),)
    widths, parameters = removable_widths(net, inputs), sum(p.numel() for p in net.parameters())
    indices = remove_channels(net, inputs, {"0": 0.5, "2": 0.5}, widths=widths, parameters=parameters)
    slice_optimizer(optimizer, before, dict(net.named_parameters()), indices)
    return before, indices


@needs_torch_pruning
@pytest.mark.parametrize("name", SLICED)
def test_state_of_each_optimizer_is_that_of_the_kept_channels(name):
    net = network()
    optimizer = SLICED[name](net.parameters())
    step(net, optimizer)
    check_states([optimizer])
    states = {name: dict(optimizer.state[p]) for name, p in net.named_parameters()}
    _, indices = cut(net, optimizer)
    assert net[0].weight.shape[0] == 4
    for path, parameter in net.named_parameters():
        for key, value in optimizer.state[parameter].items():
            old = states[path][key]
            if torch.is_tensor(old) and path in indices and old.shape == torch.Size(SHAPES[path]):
                assert torch.equal(value.flatten(), old.flatten()[indices[path].flatten()])
    step(net, optimizer)


SHAPES = {name: p.shape for name, p in network().named_parameters()}


@needs_torch_pruning
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adafactor, lambda p: OfHuggingFace(p, 0.01)])
def test_factors_are_those_of_the_kept_channels(kind, square):
    net = network(square)
    optimizer = kind(net.parameters())
    step(net, optimizer)
    weight = net[4].weight
    state = optimizer.state[weight]
    rows = next(key for key in state if "row" in key)
    columns = next(key for key in state if "col" in key)
    old = {key: state[key].clone() for key in (rows, columns)}
    width = weight.shape[1]
    _, indices = cut(net, optimizer)
    kept = indices["4.weight"][0] % width
    new = optimizer.state[net[4].weight]
    assert torch.equal(new[rows], old[rows])
    assert torch.equal(new[columns], old[columns][..., kept])
    step(net, optimizer)


def test_entries_of_the_optimizer_as_a_whole_are_left_alone():
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    step(net, optimizer)
    optimizer.state["rounds"] = 3
    check_states([optimizer])


def test_other_states_are_refused_by_name():
    for kind, message in ((Shampoo, "state 'left' of Shampoo"), (torch.optim.LBFGS, "of LBFGS")):
        net = network()
        optimizer = kind(net.parameters(), 0.1)
        if kind is Shampoo:
            step(net, optimizer)
        else:

            def closure(net=net):
                loss = net(torch.ones(1, 3, 6, 6)).square().sum()
                loss.backward()
                return loss

            optimizer.step(closure)
        with pytest.raises(ValueError, match=message):
            check_states([optimizer])


@needs_torch_pruning
def test_training_ends_at_its_first_step_and_not_at_the_removal(tmp_path):
    class LitShampoo(Lit):
        def configure_optimizers(self):
            return Shampoo(self.parameters(), 0.1)

    pl.seed_everything(0, verbose=False)
    fit = trainer(tmp_path, [Pruning(0.5, granularity="channels", begin=0.8, end=0.9, round_to=2)])
    with pytest.raises(ValueError, match="cannot resize the state 'left' of Shampoo"):
        fit.fit(LitShampoo(), loader())
    assert fit.global_step == 1

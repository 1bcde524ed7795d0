import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from lightning_green.compression import Ramp
from lightning_green.compression.distillation import losses as losses_of
from tests.helpers.compression_fits import Lit, Net, SaveAt, assert_equal, assert_resumes_exactly, loader, trainer
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


class Counted(Net):
    def __init__(self, width=16):
        super().__init__(width)
        self.samples = 0

    def forward(self, x):
        self.samples += len(x)
        return super().forward(x)


def teacher(width=16):
    torch.manual_seed(7)
    net = Counted(width)
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(32, 3, 8, 8))  # running statistics
    net.samples = 0
    return net


def fit(folder, callback, *others, module=None, data=None, **kwargs):
    torch.manual_seed(0)
    module = module or Lit()
    t = trainer(folder, [callback, *others], **kwargs)
    t.fit(module, data or loader())
    return module, t


def record_logits(callback):
    """Return a list to which the losses append a copy of the student's and the teacher's logits of each batch."""
    seen, values = [], callback.losses.values

    def spy(logits, *arguments):
        seen.append([tensor.detach().clone() for tensor in logits])
        return values(logits, *arguments)

    callback.losses.values = spy
    return seen


def outputs(network, batches=6):
    """Return the outputs of a network for each batch of `loader`."""
    with torch.no_grad():
        return [network(x) for x, _ in list(loader())[:batches]]


def test_student_approaches_the_teacher_which_is_not_part_of_the_module(tmp_path):
    net = teacher().eval()
    before = copy.deepcopy(net.state_dict())
    x = next(iter(loader(48, 48)))[0]

    def distance(module):
        with torch.no_grad():
            return losses_of.soft_targets(module.eval().net(x), net(x), 4.0).item()

    alone, _ = fit(tmp_path, Callback(), epochs=6)
    callback = KnowledgeDistillation(net, {"soft_targets": 4.0})
    module, t = fit(tmp_path, callback, epochs=6)
    assert distance(module) < 0.5 * distance(alone)
    assert t.callback_metrics["distillation/soft_targets"] > 0
    assert_equal(dict(net.state_dict()), dict(before))
    assert module.state_dict().keys() == Lit().state_dict().keys()
    assert "training_step" not in module.__dict__
    parameters = {id(p) for g in t.optimizers[0].param_groups for p in g["params"]}
    assert not parameters & {id(p) for p in net.parameters()}


def test_loss_is_the_weighted_sum(tmp_path):
    seen = {}

    class Watch(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.global_step == 2:
                seen["total"] = loss.item()

    class Plain(Lit):
        def training_step(self, batch, batch_idx):
            output = self.net(batch[0])
            task = functional.cross_entropy(output, batch[1])
            with torch.no_grad():
                logits = net(batch[0])
            if self.global_step == 2:
                seen["parts"] = (
                    task.item(),
                    losses_of.soft_targets(output, logits, 3.0).item(),
                    losses_of.decoupled(output, logits, batch[1], 3.0).item(),
                )
            return {"loss": task, "output": output.detach()}

    net = teacher().eval()
    weights = {"soft_targets": 2.0, "decoupled": Ramp(1.0, 0.0)}
    callback = KnowledgeDistillation(net, weights, temperature=3.0, task_weight=0.5)
    fit(tmp_path, callback, Watch(), module=Plain(), epochs=2)
    task, soft, decoupled = seen["parts"]
    assert seen["total"] == pytest.approx(0.5 * task + 2 * soft + (1 - 2 / 12) * decoupled, rel=1e-5)


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_cached_teacher_computes_each_image_once(tmp_path, where):
    net = teacher()
    cache = "memory" if where == "memory" else tmp_path / "cache"
    callback = KnowledgeDistillation(net, cache=cache)
    module, t = fit(tmp_path, callback)
    assert net.samples == 48
    assert t.callback_metrics["distillation/cache_hits"] == pytest.approx(2 / 3)
    assert t.callback_metrics["distillation/saved_teacher_seconds"] > 0
    uncached, _ = fit(tmp_path, KnowledgeDistillation(teacher()))
    for key, value in module.state_dict().items():
        assert torch.allclose(value.float(), uncached.state_dict()[key].float(), atol=1e-2), key
    if where == "folder":
        again = teacher()
        fit(tmp_path, KnowledgeDistillation(again, cache=cache))
        assert again.samples == 0
        with pytest.raises(ValueError, match="contains the outputs of another teacher"):
            fit(tmp_path, KnowledgeDistillation(Counted(), cache=cache))


class Views(Dataset):
    """Noisy images, seeded by the sample's index or not."""

    def __init__(self, seeded):
        self.seeded = seeded

    def __len__(self):
        return 24

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index) if self.seeded else None
        return torch.randn(3, 8, 8, generator=generator), index % 4


class Stream(IterableDataset):
    """A stream of a known number of batches, equal in each epoch unless ``noisy``."""

    def __init__(self, noisy):
        self.noisy = noisy

    def __len__(self):
        return 3

    def __iter__(self):
        generator = None if self.noisy else torch.Generator().manual_seed(3)
        for _ in range(3):
            yield torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 4


class NoisyStep(Lit):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0] + 0.1 * torch.randn_like(batch[0])), batch[1])


def test_random_views_with_a_cache_raise(tmp_path):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="`cache` should be None, because the views are random and not seeded"):
        fit(tmp_path, KnowledgeDistillation(teacher(), cache="memory"), data=DataLoader(Views(False), 8))
    torch.set_rng_state(state)
    net = teacher()
    fit(tmp_path, KnowledgeDistillation(net, cache="memory"), data=DataLoader(Views(True), 8))
    assert net.samples == 24
    with pytest.raises(ValueError, match="random and not seeded"):
        fit(tmp_path, KnowledgeDistillation(teacher(), cache="memory"), module=NoisyStep())
    fit(tmp_path, KnowledgeDistillation(teacher(), cache="memory"), module=NoisyStep(), epochs=1)


def test_cache_works_with_an_iterable_dataset(tmp_path):
    net = teacher()
    fit(tmp_path, KnowledgeDistillation(net, cache="memory"), data=DataLoader(Stream(False), batch_size=None))
    assert net.samples == 24
    with pytest.raises(ValueError, match="random and not seeded"):
        fit(tmp_path, KnowledgeDistillation(net, cache="memory"), data=DataLoader(Stream(True), batch_size=None))


@pytest.mark.parametrize(
    "make",
    [
        lambda: KnowledgeDistillation(teacher(), {"standardized": Ramp(4.0, 1.0), "relational": 0.1}),
        lambda: KnowledgeDistillation(teacher(), cache="memory"),
        lambda: KnowledgeDistillation(teacher(), {"hint": 1.0, "attention": 10.0}, layers={"block": "block"}),
    ],
)
def test_training_resumes_exactly(tmp_path, make):
    _, state = assert_resumes_exactly(tmp_path, lambda: [make()], steps=(1, 6, 8, 13))
    assert not any("teacher" in key or "adapter" in key for key in state["state_dict"])


def test_hint_loss_trains_an_adapter(tmp_path):
    callback = KnowledgeDistillation(teacher(), {"hint": 1.0}, layers={"block": "block"})
    fit(tmp_path, callback, epochs=8)
    assert callback.losses.adapters.layers["block"].shape == (16, 8)
    first = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)) / 8**0.5
    assert not torch.allclose(callback.losses.adapters.layers["block"], first)


@pytest.mark.parametrize("inner", [True, False])
def test_teacher_is_loaded_from_a_checkpoint(tmp_path, inner):
    big = Lit(width=16)
    fit(tmp_path, SaveAt(tmp_path, (3,)), module=big, epochs=1)
    if not inner:
        state = torch.load(tmp_path / "3.ckpt", weights_only=True)["state_dict"]
        torch.save({k.removeprefix("net."): v for k, v in state.items() if "net." in k}, tmp_path / "3.ckpt")
    callback = KnowledgeDistillation(tmp_path / "3.ckpt", teacher_model=Net(16))
    seen = record_logits(callback)
    fit(tmp_path, callback, epochs=1)
    saved = torch.load(tmp_path / "3.ckpt", weights_only=True)
    saved = saved["state_dict"] if inner else saved
    expected = Net(16)
    expected.load_state_dict({k.removeprefix("net."): v for k, v in saved.items() if k != "causal_mask"})
    torch.testing.assert_close([theirs for _, theirs in seen], outputs(expected.eval()))
    with pytest.raises(ValueError, match="`teacher_model` should be the network of"):
        KnowledgeDistillation(tmp_path / "3.ckpt", teacher_model=nn.Linear(3, 3))


def test_teacher_is_a_callable(tmp_path):
    net = teacher().eval()
    callback = KnowledgeDistillation(lambda x: net(x))
    seen = record_logits(callback)
    fit(tmp_path, callback, epochs=1)
    torch.testing.assert_close([theirs for _, theirs in seen], outputs(net))


@pytest.mark.parametrize("trainer_precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_teacher_computes_in_its_own_precision(tmp_path, precision, trainer_precision):
    net = teacher()
    callback = KnowledgeDistillation(net, precision=precision)
    seen = record_logits(callback)
    fit(tmp_path, callback, epochs=1, precision=trainer_precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = [logits.float() for logits in outputs(net.eval())]
    torch.testing.assert_close([theirs for _, theirs in seen], expected)
    in_32_bits = zip(seen, outputs(net), strict=True)
    assert all(torch.equal(theirs, full) == (precision == "32") for (_, theirs), full in in_32_bits)


class Segments(Lit):
    """Dense predictions, with a network that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 4, 1)

    def training_step(self, batch):
        return functional.cross_entropy(self.net(input=batch[0]), batch[1][:, None, None].expand(-1, 8, 8))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_teacher_output_selects_the_logits_of_dense_predictions(tmp_path):
    big = nn.Conv2d(3, 4, 3, padding=1)
    callback = KnowledgeDistillation(lambda x: {"logits": big(x)}, teacher_output=lambda o: o["logits"])
    seen = record_logits(callback)
    module = Segments()
    first = outputs(copy.deepcopy(module.net), batches=1)[0]
    fit(tmp_path, callback, module=module, epochs=1)
    torch.testing.assert_close([theirs for _, theirs in seen], outputs(big))
    assert seen[0][0].shape == (8, 4, 8, 8)
    torch.testing.assert_close(seen[0][0], first)


def test_hint_loss_reads_features_of_the_quantized_network(tmp_path):
    callbacks = [
        KnowledgeDistillation(teacher(), {"hint": 1.0, "standardized": 1.0}, layers={"block": "block"}),
        QuantizationAwareTraining(begin=0.5),
        Pruning(0.5, end=0.5),
    ]
    module, t = fit(tmp_path, *callbacks)
    order = [type(c) for c in t.callbacks if hasattr(c, "compression_order")]
    assert order == [Pruning, QuantizationAwareTraining, KnowledgeDistillation]
    assert t.callback_metrics["distillation/hint"] > 0
    integers = callbacks[1].convert(module).state_dict()["conv2d_1_weight"]
    assert (integers[module.net.block.conv1.weight == 0] == 0).all()


def test_adapter_fits_a_layer_after_channels_are_removed(tmp_path):
    pytest.importorskip("torch_pruning", reason="needs the extra `compression`: torch-pruning")
    net = teacher()
    callbacks = [
        QuantizationAwareTraining(begin=0.6),
        KnowledgeDistillation(net, {"standardized": 1.0, "hint": 1.0}, layers={"block": "block"}),
        Pruning(0.5, "channels", begin=0.2, end=0.5),
    ]
    module, _ = fit(tmp_path, *callbacks)
    assert callbacks[0].convert(module).state_dict()["conv2d_weight"].shape[0] == module.net.stem.out_channels < 8
    assert callbacks[1].losses.adapters.layers["block"].shape == (16, module.net.block.conv2.out_channels)


def everything():
    return [
        KnowledgeDistillation(teacher(), cache="memory"),
        QuantizationAwareTraining(begin=0.6, freeze=0.9),
        Pruning(0.6, begin=0.1, end=0.5, every_n_steps=2),
    ]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_all_compression_callbacks_resume_exactly(tmp_path, precision):
    module, state = assert_resumes_exactly(
        tmp_path, everything, steps=(1, 4, 9, 11, 14, 17), precision=precision, make_module=lambda: Lit("adam")
    )
    assert len(state["callbacks"]) >= 3
    assert (module.net.block.conv1.weight == 0).float().mean() > 0.4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"teacher": 3}, TypeError, "`teacher` should be a module, a callable or the path"),
        ({"teacher": "x.ckpt"}, ValueError, "`teacher_model` should be the network that 'x.ckpt'"),
        ({"losses": "crd"}, ValueError, "`losses` should be one of 'standardized'"),
        ({"losses": {}}, ValueError, "`losses` should name at least one"),
        ({"losses": {"soft_targets": -1.0}}, ValueError, r"`losses\['soft_targets'\]` should be a weight"),
        ({"losses": "hint"}, ValueError, "`layers` should name the layers that hint compare"),
        ({"layers": {"a": "b"}}, ValueError, "`layers` are for the losses 'hint' and 'attention'"),
        ({"temperature": 0.0}, ValueError, "`temperature` should be above 0"),
        ({"precision": "fp8"}, ValueError, "`precision` should be one of '32', 'bf16', '16'"),
        (
            {"losses": "hint", "layers": {"a": "b"}, "cache": "memory"},
            ValueError,
            "`cache` stores outputs, not features",
        ),
    ],
)
def test_invalid_arguments_raise_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        KnowledgeDistillation(**{"teacher": Net(), **arguments})


class Manual(Lit):
    def training_step(self, batch, batch_idx):
        return "no loss"


class Elsewhere(Lit):
    def training_step(self, batch, batch_idx):
        return self.net.fc.weight.sum()


@pytest.mark.parametrize(
    ("arguments", "module", "message"),
    [
        ({"teacher": nn.Sequential(nn.Flatten(), nn.Linear(192, 7))}, Lit, r"student's outputs \(8, 4\), got \(8, 7\)"),
        ({}, Manual, "`training_step` of Manual should return a loss to be distilled, got str"),
        ({}, Elsewhere, "`model` should be the network that training_step calls"),
        ({"losses": "hint", "layers": {"block9": "block"}}, Lit, "`layers` should be the dotted path of a submodule"),
    ],
)
def test_arguments_that_do_not_fit_the_training_raise(tmp_path, arguments, module, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, KnowledgeDistillation(**{"teacher": Net(), **arguments}), module=module())


@pytest.mark.parametrize("of_teacher", ["model_output", "tuple"])
@pytest.mark.parametrize("returns", ["model_output", "dataclass", "dict", "tuple"])
def test_network_called_by_keyword_with_labels_is_distilled(tmp_path, returns, of_teacher):
    torch.manual_seed(1)
    module, net = LitTokens(TokenClassifier(returns=returns)), TokenClassifier(24, of_teacher)
    callback = KnowledgeDistillation(
        net,
        {"standardized": 1.0, "decoupled": 1.0, "attention": 1.0, "hint": 1.0},
        layers={"encoder": "encoder"},
        channel_dim=-1,
    )
    seen = record_logits(callback)
    _, t = fit(tmp_path, callback, module=module, data=sentences(), epochs=1)
    with torch.no_grad():
        expected = [net.eval()(**batch) for batch in sentences()]
    expected = [output[-1] if of_teacher == "tuple" else output.logits for output in expected]
    torch.testing.assert_close([theirs for _, theirs in seen], expected)
    assert callback.losses.adapters.layers["encoder"].shape == (24, 16)
    assert t.callback_metrics["distillation/decoupled"] > 0


def test_networks_called_by_keyword_are_pruned_distilled_and_quantized(tmp_path):
    qat = QuantizationAwareTraining(begin=0.5)
    module = LitTokens(TokenClassifier())
    callbacks = [qat, Pruning(0.5, end=0.5), KnowledgeDistillation(TokenClassifier(24))]
    _, t = fit(tmp_path, *callbacks, module=module, data=sentences())
    assert t.callback_metrics["distillation/standardized"] > 0
    assert (module.model.encoder.weight == 0).float().mean() > 0.3
    assert list(qat.convert(module)(*list(next(iter(sentences())).values())[:2])) == ["logits"]


class Masked(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.fc = nn.Linear(192, classes)

    def forward(self, x, mask=None):
        x = x.flatten(1)
        return self.fc(x if mask is None else x * mask)


class MaskedTeacher(Masked):
    """A teacher whose second argument is another one."""

    def forward(self, x, segments=None, mask=None):
        assert segments is None
        return super().forward(x, mask)


class LitMasked(Lit):
    def __init__(self, net=None):
        super().__init__()
        self.net = net or Masked()

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(x=batch[0], mask=torch.zeros(192)), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_teacher_receives_arguments_by_keyword(tmp_path):
    net = MaskedTeacher()
    callback = KnowledgeDistillation(net)
    seen = record_logits(callback)
    fit(tmp_path, callback, module=LitMasked(), epochs=1)
    assert all(torch.equal(theirs, net.fc.bias.expand(8, 4)) for _, theirs in seen)  # the mask is zero


def test_teacher_that_does_not_accept_the_arguments_raises_before_the_first_step(tmp_path):
    module = LitMasked()
    before = module.net.fc.weight.clone()
    with pytest.raises(ValueError, match=r"`teacher` should accept .* x, mask\), but it cannot: .*'mask'"):
        fit(tmp_path, KnowledgeDistillation(Net()), module=module)
    assert torch.equal(module.net.fc.weight, before)


class WithMetric(LitMasked):
    """The task's loss has no gradient, and the last call is one for a metric."""

    def training_step(self, batch, batch_idx):
        loss = 0 * self.net(batch[0]).sum()
        with torch.no_grad():
            self.log("clean", functional.cross_entropy(self.net(batch[0]), batch[1]))
        return loss


def test_calls_without_gradients_are_not_distilled(tmp_path):
    module = WithMetric()
    before = module.net.fc.weight.detach().clone()
    fit(tmp_path, KnowledgeDistillation(Masked()), module=module, epochs=1)
    assert not torch.equal(module.net.fc.weight, before)

    class OnlyMetric(WithMetric):
        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                self.net(batch[0])
            return self.net.fc.weight.sum()

    with pytest.raises(ValueError, match="it was not called with gradients"):
        fit(tmp_path, KnowledgeDistillation(Masked()), module=OnlyMetric())


class WithStem(nn.Module):
    def __init__(self, stem):
        super().__init__()
        self.stem, self.dropout, self.head = stem, nn.Dropout(0.5), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.dropout(torch.relu(self.stem(x.flatten(1)))))


class Modes(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.modes = {module.training for module in pl_module.net.modules()}


class LitPositional(LitMasked):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0]), batch[1])


def test_layers_shared_with_the_teacher_are_trained(tmp_path):
    stem, watch = nn.Sequential(nn.Linear(192, 16), nn.BatchNorm1d(16)), Modes()
    student, net = WithStem(stem), WithStem(stem)
    before = stem[0].weight.detach().clone()
    callback = KnowledgeDistillation(net, {"standardized": 1.0, "hint": 1.0}, layers={"stem": "stem"})
    _, t = fit(tmp_path, callback, watch, module=LitPositional(student), epochs=1)
    assert stem[0].weight.requires_grad
    assert not torch.equal(stem[0].weight, before)
    assert watch.modes == {True}
    assert stem[1].num_batches_tracked == 6  # the teacher's calls are in evaluation mode
    assert t.callback_metrics["distillation/hint"] > 0  # features of training mode and of evaluation mode


class Tokens(nn.Module):
    """Outputs and features of the shape (samples, tokens, width)."""

    def __init__(self, width=16, extra=0):
        super().__init__()
        self.project, self.body, self.head = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 5)
        self.extra = extra

    def forward(self, x):
        x = self.project(x.flatten(1, 2))
        x = torch.cat([x, x[:, : self.extra]], 1)
        return self.head(self.body(x)[:, :24])


class LitLanguage(LitMasked):
    def training_step(self, batch, batch_idx):
        return 0 * self.net(batch[0]).sum()


def test_classes_of_tokens_are_along_the_given_dimension(tmp_path):
    net = Tokens()

    def shifted(x):  # the same distribution at each position
        return net(x).detach() + 3 * torch.arange(24.0)[None, :, None]

    with pytest.raises(
        ValueError, match=r"`channel_dim` should be 1 or -1 for outputs with three dimensions, got None"
    ):
        fit(tmp_path, KnowledgeDistillation(shifted, "soft_targets"), module=LitLanguage(net))
    for dim, is_zero in ((-1, True), (1, False)):
        callback = KnowledgeDistillation(shifted, "soft_targets", channel_dim=dim)
        _, t = fit(
            tmp_path, callback, module=LitLanguage(copy.deepcopy(net)) if dim == 1 else LitLanguage(net), epochs=1
        )
        assert (t.callback_metrics["distillation/soft_targets"] < 1e-3) == is_zero


def test_adapters_of_tokens_map_their_width(tmp_path):
    callback = KnowledgeDistillation(Tokens(24), {"hint": 1.0}, layers={"body": "body"}, channel_dim=-1)
    fit(tmp_path, callback, module=LitLanguage(Tokens()), epochs=1)
    assert callback.losses.adapters.layers["body"].shape == (24, 16)
    more = KnowledgeDistillation(Tokens(24, extra=1), {"hint": 1.0}, layers={"body": "body"}, channel_dim=-1)
    with pytest.raises(ValueError, match="`layers` should name layers with the same samples and positions, but 'body'"):
        fit(tmp_path, more, module=LitLanguage(Tokens()))
    with pytest.raises(ValueError, match="`channel_dim` should be 1 or -1 for features of 'body'"):
        fit(tmp_path, KnowledgeDistillation(Tokens(), "hint", layers={"body": "body"}), module=LitLanguage(Tokens()))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.unused, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(2, 2), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.recurrent(x.flatten(1, 2))[0][:, -1])


class TwoHeads(Masked):
    def forward(self, x):
        return super().forward(x), self.fc(x.flatten(1) + 1)


class LitTwoHeads(LitMasked):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0])[0], batch[1])


@pytest.mark.parametrize(
    ("make_network", "module", "arguments", "message"),
    [
        (
            Recurrent,
            LitPositional,
            {"losses": "hint", "layers": {"recurrent": "recurrent"}},
            r"`layers` should name layers that return one tensor, .*'recurrent', got tuple with \(8, 24, 16\)",
        ),
        (
            Recurrent,
            LitPositional,
            {"losses": "hint", "layers": {"unused": "unused"}},
            "`layers` should name layers that are called in training, but 'unused' was not",
        ),
        (TwoHeads, LitTwoHeads, {}, r"`student_output` should be a function .*, got tuple with \(8, 4\), \(8, 4\)"),
    ],
)
def test_outputs_that_need_an_argument_raise_before_the_first_step(tmp_path, make_network, module, arguments, message):
    student = make_network()
    before = copy.deepcopy(student.state_dict())
    callback = KnowledgeDistillation(make_network(), **arguments)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, callback, module=module(student))
    assert_equal(student.state_dict(), before)


class NamedClasses(LitTokens):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.model(batch["input_ids"], batch["attention_mask"]).logits, batch["y"])


def test_target_of_a_dictionary_without_labels_raises(tmp_path):
    data = [{name if name != "labels" else "y": value for name, value in batch.items()} for batch in sentences()]
    module, callback = NamedClasses(TokenClassifier()), KnowledgeDistillation(TokenClassifier(), "decoupled")
    with pytest.raises(ValueError, match=r"`target` should be a function .* dict with input_ids, attention_mask, y"):
        fit(tmp_path, callback, module=module, data=DataLoader(data, batch_size=None))
    callback = KnowledgeDistillation(TokenClassifier(), "decoupled", target=lambda batch: batch["y"])
    fit(tmp_path, callback, module=module, data=DataLoader(data, batch_size=None), epochs=1)


def test_cache_needs_a_network_with_one_input(tmp_path):
    module, callback = LitTokens(TokenClassifier()), KnowledgeDistillation(TokenClassifier(), cache="memory")
    with pytest.raises(ValueError, match="`cache` needs a network with one input, got 3"):
        fit(tmp_path, callback, module=module, data=sentences())


def test_cache_works_with_one_input_by_keyword(tmp_path):
    net = nn.Conv2d(3, 4, 1)
    callback = KnowledgeDistillation(net, cache="memory")
    seen = record_logits(callback)
    fit(tmp_path, callback, module=Segments(), epochs=2)
    torch.testing.assert_close([theirs for _, theirs in seen], 2 * outputs(net), atol=1e-2, rtol=1e-2)
    assert callback.cache.misses == 48

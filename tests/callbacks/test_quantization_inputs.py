"""Inputs whose sizes differ from call to call, or are as large as the batch by coincidence; layers that change."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import QuantizationAwareTraining
from lightning_green.compression import export, onnx_session
from tests.helpers.compression_fits import trainer
from tests.helpers.extras import needs_onnx


class Attention(nn.Module):
    """One head with a mask of attention, which has no dimension of samples."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, tokens, mask=None):
        z = torch.relu(self.inner(tokens))
        if mask is not None:
            z = torch.softmax((z @ z.transpose(1, 2)).masked_fill(mask[None] == 0, -1e4), -1) @ z
        return self.head(z.mean(1))


class Lit(pl.LightningModule):
    def __init__(self, net, masked=False):
        super().__init__()
        self.net, self.masked = net, masked

    def training_step(self, batch, batch_idx):
        length = batch[0].shape[1]
        more = (torch.tril(torch.ones(length, length)),) if self.masked else ()
        return F.cross_entropy(self.net(batch[0], *more), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


def tokens(batch=8, length=8, count=32):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(count, length, 6, generator=generator), torch.randint(0, 4, (count,), generator=generator)
    return DataLoader(TensorDataset(*data), batch)


@pytest.mark.parametrize("batch", [8, 16])
def test_mask_that_is_as_large_as_the_batch_has_no_samples(tmp_path, batch):
    torch.manual_seed(0)
    module, qat = Lit(Attention(), masked=True), QuantizationAwareTraining(0.3)
    trainer(tmp_path, [qat]).fit(module, tokens(batch))
    converted, mask = qat.convert(module), torch.tril(torch.ones(8, 8))
    for count in (2, 5, 8, 20):
        x = torch.randn(count, 8, 6)
        expected = qat.quantized.run(x, mask, training=False)
        torch.testing.assert_close(converted(x, mask), expected, atol=0.02, rtol=0.05)


class Lengths:
    """Batches of another length each."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for length in (4, 9, 6, 5, 3, 7, 8, 10, 12, 11):
            yield (
                torch.randn(8, length, 6, generator=generator),
                torch.randint(0, 4, (8,), generator=generator),
            )

    def __len__(self):
        return 10


@needs_onnx
def test_dynamic_dimensions_share_one_graph_and_the_file_accepts_other_lengths(tmp_path, recwarn):
    torch.manual_seed(0)
    qat = QuantizationAwareTraining(0.3, dynamic={"tokens": [1], "mask": [0, 1]})
    module = Lit(Attention(), masked=True)
    trainer(tmp_path, [qat]).fit(module, DataLoader(list(Lengths()), batch_size=None))
    assert not [str(one.message) for one in recwarn if "fake quantization" in str(one.message)]
    assert len(qat.quantized._calls) == 1
    converted = qat.convert(module)
    x, mask = torch.randn(3, 20, 6), torch.tril(torch.ones(20, 20))
    expected = qat.quantized.run(x, mask, training=False)
    torch.testing.assert_close(converted(x, mask), expected, atol=0.02, rtol=0.05)
    export(converted, tmp_path / "model.onnx")
    session = onnx_session(tmp_path / "model.onnx")
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (x.numpy(), mask.numpy()), strict=True)))
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=0.02, rtol=0.05)


def test_each_length_has_its_own_graphs_without_dynamic_dimensions(tmp_path):
    torch.manual_seed(0)
    module, qat = Lit(Attention()), QuantizationAwareTraining(0.3)
    data = DataLoader(list(Lengths()), batch_size=None)
    with pytest.warns(UserWarning, match="Name dimensions of other sizes in `dynamic`, or pad tensors to a few sizes"):
        trainer(tmp_path, [qat]).fit(module, data)


def test_unknown_name_in_dynamic_is_rejected_before_the_first_step(tmp_path):
    module, qat = Lit(Attention()), QuantizationAwareTraining(0.9, dynamic={"x": [1]})
    fit = trainer(tmp_path, [qat])
    with pytest.raises(ValueError, match="`dynamic` should name inputs of Attention: tokens; got x"):
        fit.fit(module, tokens())
    assert fit.global_step == 0


class Frozen(pl.LightningModule):
    """Freezes the statistics of batch norm, and drops everything, in its last epoch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(288, 4)
        )

    def on_train_epoch_start(self):
        self.before = self.net[1].running_mean.clone()
        if self.current_epoch == 3:
            self.net[1].eval()
            self.net[3].p = 1.0

    def training_step(self, batch, batch_idx):
        self.outputs = self.net(batch[0])
        return F.cross_entropy(self.outputs, batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


def test_changes_of_modes_and_numbers_by_the_training_are_followed(tmp_path):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(32, 3, 8, 8), torch.randint(0, 4, (32,)))
    module, qat = Frozen(), QuantizationAwareTraining("1ep")
    trainer(tmp_path, [qat], epochs=4).fit(module, DataLoader(data, 8))
    assert torch.equal(module.net[1].running_mean, module.before)
    assert float(module.outputs.detach().std(0).max()) == 0.0
    assert qat.quantized is not None


@needs_onnx
@pytest.mark.parametrize("norm", ["plain", "weight_norm", "spectral_norm"])
def test_normalized_weights_are_stored_in_eight_bits(tmp_path, norm, caplog):
    torch.manual_seed(0)
    apply = (lambda layer: layer) if norm == "plain" else getattr(nn.utils.parametrizations, norm)
    net = nn.Sequential(nn.Flatten(), apply(nn.Linear(48, 64)), nn.ReLU(), nn.Linear(64, 4))
    module, qat = Lit(net), QuantizationAwareTraining(0.3)
    trainer(tmp_path, [qat]).fit(module, tokens())
    written = export(qat.convert(module), tmp_path / "model.onnx")
    assert written.weight_bytes < 1.2 * (48 * 64 + 64 * 4) + 4 * 3 * 68
    assert written.float_weights == ()


def test_weights_that_stay_in_float_are_named_before_the_first_step(tmp_path, caplog):
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose1d(8, 8, 1), nn.Flatten(), nn.Linear(48, 4))
    caplog.set_level("INFO")
    trainer(tmp_path, [QuantizationAwareTraining(0.9)], epochs=1).fit(Lit(net), tokens())
    assert caplog.text.count("`QuantizationAwareTraining` leaves these weights in float: `0.weight`.") == 1

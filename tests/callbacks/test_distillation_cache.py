import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.energy.none import NoMeter
from tests.helpers.compression_fits import Lit, fit
from tests.helpers.distillation_fits import Counted, Segments, outputs, record_logits, teacher
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


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


@pytest.mark.parametrize("known", [True, False])
def test_saved_energy_is_logged_if_that_of_the_run_is_known(tmp_path, known):
    tracker = EmissionsTracker(meter=100.0 if known else NoMeter())
    _, t = fit(tmp_path, KnowledgeDistillation(teacher(), cache="memory"), tracker)
    assert t.callback_metrics["distillation/saved_teacher_seconds"] > 0
    assert ("distillation/saved_kwh_modelled" in t.callback_metrics) == known


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

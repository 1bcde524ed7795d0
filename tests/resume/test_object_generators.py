"""Random generators and counters of datasets, transforms, samplers and streams continue exactly."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, Subset

from lightning_green import ExactResume
from lightning_green.resume.object_generators import find_generators, generator_states, set_generator_states
from lightning_green.resume.plain_data import from_plain, to_plain
from tests.helpers.interrupted_fits import assert_continues_exactly, train_part
from tests.helpers.resume_training import digest
from tests.helpers.trainers import quiet_trainer

GENERATORS = {
    "numpy": (lambda: np.random.default_rng(3), lambda one: one.random()),
    "old numpy": (lambda: np.random.RandomState(3), lambda one: one.random_sample()),
    "python": (lambda: random.Random(3), lambda one: one.random()),
    "torch": (lambda: torch.Generator().manual_seed(3), lambda one: float(torch.rand(1, generator=one))),
}


class Holder:
    def __init__(self, **values):
        self.__dict__.update(values)


@pytest.mark.parametrize("kind", GENERATORS)
def test_state_is_plain_data_and_is_set_in_place(kind):
    make, draw = GENERATORS[kind]
    generator = make()
    draw(generator)
    states = from_plain(to_plain(generator_states({"a": generator})))
    expected = [draw(generator) for _ in range(3)]
    other = make()
    set_generator_states({"a": other}, states)
    assert [draw(other) for _ in range(3)] == expected


@pytest.mark.parametrize("kind", GENERATORS)
def test_state_of_another_kind_or_path_is_ignored(kind):
    make, draw = GENERATORS[kind]
    expected = draw(make())
    for other, (make_other, draw_other) in GENERATORS.items():
        later = make_other()
        draw_other(later)
        generator = make()
        set_generator_states({"a": generator}, generator_states({"b" if other == kind else "a": later}))
        assert draw(generator) == expected


def test_generators_are_found_once_in_attributes_and_containers():
    one, two, three = np.random.default_rng(1), random.Random(1), torch.Generator()
    inner = Holder(generator=two, again=[one, {"a": (three,)}])
    owner = Holder(rng=one, transforms=[inner, inner], module=np.random, big=[random.Random(2)] * 2000)
    owner.itself = owner
    assert find_generators(None, owner, 3) == {
        "1.rng": one,
        "1.transforms[0].generator": two,
        "1.transforms[0].again[1]['a'][0]": three,
    }


def test_datasets_are_searched_on_request():
    data = Augmented("numpy")
    sampler = Holder(data_source=data)
    assert list(find_generators(sampler).values()) == [data.transforms[0].rng]
    assert find_generators(sampler, with_datasets=False) == {}


# -- whole fits -------------------------------------------------------------------------------------------------------


class Noise:
    """A transform with a generator of its own."""

    def __init__(self, kind):
        make, self.draw = GENERATORS[kind]
        self.rng = make()

    def __call__(self, x):
        return x + self.draw(self.rng)


class Augmented(Dataset):
    def __init__(self, kind):
        self.x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
        self.transforms = [Noise(kind)]

    def __len__(self):
        return 16

    def __getitem__(self, index):
        x = self.x[index]
        for transform in self.transforms:
            x = transform(x)
        return x


class ByEpoch(Dataset):
    """A dataset whose samples depend on the epoch, which a hook sets."""

    epoch = 0

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return torch.randn(4, generator=torch.Generator().manual_seed(1000 * self.epoch + index))


class Drawing(Sampler):
    """A sampler that draws from its own generator in every pass."""

    def __init__(self):
        self.rng = np.random.default_rng(4)

    def __len__(self):
        return 16

    def __iter__(self):
        return iter(self.rng.permutation(16).tolist())


class Counting(Sampler):
    """A batch sampler that shuffles by the number of its pass."""

    def __init__(self):
        self.passes = 0

    def __len__(self):
        return 4

    def __iter__(self):
        self.passes += 1
        yield from np.random.default_rng(self.passes).permutation(16).reshape(4, 4).tolist()


class Stream(IterableDataset):
    """A stream that counts its passes and draws from its own generator."""

    passes = 0

    def __init__(self):
        self.rng = np.random.default_rng(6)

    def __iter__(self):
        self.passes += 1
        for index in np.random.default_rng(self.passes).permutation(16):
            yield torch.full((4,), float(index) / 16) + float(self.rng.normal())


class Batches(Stream):
    """An object that yields batches, without a DataLoader."""

    def __iter__(self):
        yield from torch.stack(list(super().__iter__())).split(4)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Linear(4, 1))

    def on_train_epoch_start(self):
        dataset = getattr(self.trainer.train_dataloader, "dataset", None)
        dataset = getattr(dataset, "dataset", dataset)
        if isinstance(dataset, ByEpoch):
            dataset.epoch = self.current_epoch

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).square().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


DATA = {
    **{kind: lambda kind=kind: DataLoader(Augmented(kind), 4, shuffle=True) for kind in GENERATORS},
    "sampler": lambda: DataLoader(ByEpoch(), 4, sampler=Drawing()),
    "passes of a sampler": lambda: DataLoader(ByEpoch(), batch_sampler=Counting()),
    "stream": lambda: DataLoader(Stream(), 4),
    "object that yields batches": lambda: Batches(),
    "epoch": lambda: DataLoader(ByEpoch(), 4, shuffle=True),
    "epoch of a subset": lambda: DataLoader(Subset(ByEpoch(), range(12)), 3, shuffle=True),
    "epoch, workers": lambda: DataLoader(ByEpoch(), 4, shuffle=True, num_workers=2),
}


def train(folder, name, stop=None):
    pl.seed_everything(2, verbose=False)
    module = Net()
    data = DATA[name](), DataLoader(Augmented("numpy"), 4)
    part = train_part(folder, module, *data, stop=stop, max_epochs=3, limit_val_batches=2)
    return part, digest(module.state_dict())


@pytest.mark.sampled
@pytest.mark.parametrize("stop", [2, 4, 7])
@pytest.mark.parametrize("name", DATA)
def test_stopped_fit_ends_like_an_uninterrupted_one(name, stop, tmp_path):
    assert_continues_exactly(lambda folder, at: train(folder, name, at), tmp_path, stop)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("stop", "saved"), [(7, 0), (14, 12), (19, 12)])
def test_generators_in_workers_continue_at_the_start_of_an_epoch(stop, saved, tmp_path):
    """An epoch takes four minutes, and a state is due after 15 minutes: at the start of the fourth epoch."""

    def part(name, stop=None):
        pl.seed_everything(2, verbose=False)
        module, data = Net(), (DataLoader(Augmented("numpy"), 4, num_workers=1), DataLoader(Augmented("numpy"), 4))
        fit = train_part(tmp_path / name, module, *data, stop=stop, max_epochs=5, limit_val_batches=2)
        return fit, digest(module.state_dict())

    straight, expected = part("straight")
    first, _ = part("stopped", stop)
    second, weights = part("stopped")
    assert first.stopped
    assert second.trained == straight.trained - saved
    assert weights == expected


def test_generators_in_workers_are_reported(tmp_path, monkeypatch, caplog):
    loader = DataLoader(Augmented("numpy"), 4, num_workers=1)
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "run"))
    trainer = quiet_trainer(tmp_path, ExactResume(), max_steps=1, enable_checkpointing=True)
    caplog.set_level("INFO")
    trainer.fit(Net(), loader)
    assert "at the end of an epoch only: the dataset keeps a random generator, and each worker" in caplog.text


def test_generators_in_persistent_workers_are_never_saved(tmp_path, monkeypatch, caplog):
    loader = DataLoader(Augmented("numpy"), 4, num_workers=1, persistent_workers=True)
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "run"))
    trainer = quiet_trainer(tmp_path, ExactResume(), max_steps=1, enable_checkpointing=True)
    caplog.set_level("INFO")
    trainer.fit(Net(), loader)
    assert "neither paused nor saved: the dataset keeps a random generator" in caplog.text
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_generators_in_workers_of_a_later_epoch_are_found_when_a_state_is_saved(tmp_path, caplog):
    plain = Augmented("numpy")
    plain.transforms = []

    class Reloading(Net):
        def train_dataloader(self):
            return DataLoader(Augmented("numpy") if self.current_epoch else plain, 4, num_workers=1)

        def val_dataloader(self):
            return DataLoader(plain, 4)

    options = {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2, "limit_val_batches": 2}
    first = train_part(tmp_path, Reloading(), stop=5, **options)
    assert first.stopped
    assert "The run is saved, and exits, at the end of an epoch only: the dataset keeps a random" in caplog.text
    assert not list((tmp_path / "run").rglob("*.ckpt"))

import lightning.pytorch as pl
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green._lightning.checkpoint import (
    add_hyperparameters,
    drop_hyperparameters,
    dump_checkpoint,
    inject_checkpoint,
)
from tests.helpers.trainers import batches, quiet_trainer


class WithHyperparameters(BoringModel):
    def __init__(self, width=3):
        super().__init__()
        self.save_hyperparameters()


class Dump(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        self.whole, self.small = dump_checkpoint(trainer), dump_checkpoint(trainer, with_model=False)


class Inject(pl.Callback):
    def __init__(self, load):
        self.load = load

    def setup(self, trainer, pl_module, stage):
        inject_checkpoint(trainer, self.load)


def test_checkpoint_without_model_has_no_weights_and_the_strategy_is_unchanged(tmp_path):
    dump, model = Dump(), BoringModel()
    trainer = quiet_trainer(tmp_path, dump)
    trainer.fit(model, batches())
    assert dump.small["state_dict"] == {}
    assert dump.small["optimizer_states"] == [{}]
    assert dump.small.keys() == dump.whole.keys()
    assert set(dump.whole["state_dict"]) == set(model.state_dict())
    assert set(trainer.strategy.lightning_module_state_dict()) == set(model.state_dict())


def test_injected_checkpoint_is_restored_instead_of_the_users(tmp_path):
    dump = Dump()
    trained = BoringModel()
    quiet_trainer(tmp_path, dump).fit(trained, batches())
    saved = {**dump.whole, "state_dict": {name: one.clone() for name, one in dump.whole["state_dict"].items()}}

    model = BoringModel()
    trainer = quiet_trainer(tmp_path, Inject(lambda given: ("injected.ckpt", saved)), max_epochs=1)
    trainer.fit(model, batches())
    assert trainer.global_step == 6
    assert all(torch.equal(one, saved["state_dict"][name]) for name, one in model.state_dict().items())


def test_without_an_injected_checkpoint_training_starts_from_the_beginning(tmp_path):
    called = []
    trainer = quiet_trainer(tmp_path, Inject(called.append))
    trainer.fit(BoringModel(), batches())
    assert called == [None]
    assert trainer.global_step == 6


def test_hyperparameters_are_dropped_and_the_live_ones_are_added(tmp_path):
    dump, model = Dump(), WithHyperparameters(5)
    trainer = quiet_trainer(tmp_path, dump)
    trainer.fit(model, batches())
    checkpoint = dump.whole
    assert checkpoint[pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY] == {"width": 5}
    drop_hyperparameters(checkpoint)
    assert not [key for key in checkpoint if "hyper" in key or "hparams" in key]
    model.hparams.width = 6
    add_hyperparameters(trainer, checkpoint)
    assert checkpoint[pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY] == {"width": 6}

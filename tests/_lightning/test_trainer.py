"""Every private attribute of Lightning that this project touches exists in the installed version.

The table says where each lives. An attribute that the code begins to touch, and that is not in the table, fails too.
"""

import ast
import importlib
from pathlib import Path

import lightning
import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green._lightning import loggers as _lightning_loggers
from lightning_green._lightning import metric_results as _lightning_logged
from lightning_green._lightning import trainer as _lightning

FILES = [Path(module.__file__) for module in (_lightning, _lightning_logged, _lightning_loggers)]
OURS = {"_key", "_bound_", "_lightning_green_fit"}  # what these files keep for themselves

# attribute -> the object that has it, in the middle of a training
PLACES = {
    "_restarting": lambda seen: seen["trainer"].fit_loop.epoch_loop.val_loop,
    "_loaded_from_state_dict": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_resuming_from_checkpoint": lambda seen: seen["trainer"].fit_loop,
    "_checkpoint_connector": lambda seen: seen["trainer"],
    "_ckpt_path": lambda seen: seen["trainer"]._checkpoint_connector,
    "_loaded_checkpoint": lambda seen: seen["trainer"]._checkpoint_connector,
    "_pl_migrate_checkpoint": lambda seen: _lightning.migration,
    "_signal_connector": lambda seen: seen["trainer"],
    "_results": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_group": lambda seen: seen["result"].meta.sync,
    "_should": lambda seen: seen["result"].meta.sync,
    "_update_count": lambda seen: seen["result"],
    "_forward_cache": lambda seen: seen["result"],
    "_logger_connector": lambda seen: seen["trainer"],
    "_callback_metrics": lambda seen: seen["trainer"]._logger_connector,
    "_logged_metrics": lambda seen: seen["trainer"]._logger_connector,
    "_progress_bar_metrics": lambda seen: seen["trainer"]._logger_connector,
    "_first_loop_iter": lambda seen: seen["trainer"]._logger_connector,
    "_current_fx": lambda seen: seen["trainer"]._logger_connector,
    "_should_accumulate": lambda seen: seen["trainer"].fit_loop,
    "_num_ready_batches_reached": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_accumulated_batches_reached": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_batches_that_stepped": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_combined_loader": lambda seen: seen["trainer"].fit_loop,
    "_data_fetcher": lambda seen: seen["trainer"].fit_loop,
    "_on_before_fetch": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_on_after_fetch": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_last_val_time": lambda seen: seen["trainer"],
    "_start_time": lambda seen: seen[Timer],
    "_end_time": lambda seen: seen[Timer],
    "_last_time_checked": lambda seen: seen[ModelCheckpoint],
    "_t0s": lambda seen: seen[ThroughputMonitor],
    **dict.fromkeys(
        [
            "_scheduler_state",
            "_swa_lrs",
            "_annealing_epochs",
            "_annealing_strategy",
            "_average_model",
            "_device",
            "_init_n_averaged",
            "_swa_scheduler",
            "_initialized",
        ],
        lambda seen: seen[StochasticWeightAveraging],
    ),
    **dict.fromkeys(
        ["_attr_name", "_max_lr", "_min_lr", "_mode", "_num_training_steps", "_update_attr"],
        lambda seen: LearningRateFinder(),
    ),
    "_batch_arg_name": lambda seen: BatchSizeFinder(),
    "_early_exit": lambda seen: BatchSizeFinder(),
    **dict.fromkeys(
        ["_LRFinder", "_determine_lr_attr_name"],
        lambda seen: importlib.import_module("lightning.pytorch.tuner.lr_finder"),
    ),
    "_accelerator_connector": lambda seen: seen["trainer"],
    "_iterator": lambda seen: seen["trainer"].fit_loop._combined_loader,
    "_consumed": lambda seen: iter(CombinedLoader([[1], [1, 2]], "max_size_cycle"))._iterator,
    "_version": lambda seen: seen[CSVLogger],
    "_experiment": lambda seen: seen[WandbLogger],
    "_wandb_init": lambda seen: seen[WandbLogger],
    "_id": lambda seen: seen[WandbLogger],
    "_Loop": lambda seen: importlib.import_module("lightning.pytorch.loops.loop"),
    "_ProcessedTracker": lambda seen: importlib.import_module("lightning.pytorch.loops.progress"),
    "_MultiProcessingLauncher": lambda seen: importlib.import_module(
        "lightning.pytorch.strategies.launchers.multiprocessing"
    ),
    **dict.fromkeys(
        ["_Metadata", "_ResultMetric", "_Sync"],
        lambda seen: importlib.import_module("lightning.pytorch.trainer.connectors.logger_connector.result"),
    ),
    **dict.fromkeys(
        ["_HandlersCompose", "_SignalConnector"],
        lambda seen: importlib.import_module("lightning.pytorch.trainer.connectors.signal_connector"),
    ),
}

# public names that no documentation promises: their owner, and what has to be there
UNPROMISED = {
    "loops have `reset_restart_stage`": lambda seen: seen["trainer"].fit_loop.epoch_loop.val_loop.reset_restart_stage,
    "the connector has `resume_start`": lambda seen: seen["trainer"]._checkpoint_connector.resume_start,
    "the connector has `dump_checkpoint`": lambda seen: seen["trainer"]._checkpoint_connector.dump_checkpoint,
    "the connector has `received_sigterm`": lambda seen: seen["trainer"]._signal_connector.received_sigterm,
    "composed handlers have `signal_handlers`": lambda seen: (
        importlib.import_module("lightning.pytorch.trainer.connectors.signal_connector")
        ._HandlersCompose([print])
        .signal_handlers
    ),
    "an epoch's loop has `batch_progress`": lambda seen: seen["trainer"].fit_loop.epoch_loop.batch_progress.current,
    "epochs are counted as `processed`": lambda seen: seen["trainer"].fit_loop.epoch_progress.current.processed,
    "the fit loop has `on_advance_start`": lambda seen: seen["trainer"].fit_loop.on_advance_start,
    "the fit loop has `on_run_end`": lambda seen: seen["trainer"].fit_loop.on_run_end,
    "the epoch's loop has `on_run_start`": lambda seen: seen["trainer"].fit_loop.epoch_loop.on_run_start,
    "the epoch's loop has `on_advance_end`": lambda seen: seen["trainer"].fit_loop.epoch_loop.on_advance_end,
    "a logged mean has `cumulated_batch_size`": lambda seen: seen["result"].cumulated_batch_size,
    "a logged value has `has_reset`": lambda seen: seen["result"].has_reset,
    **{
        f"what is known about a logged value has `{name}`": lambda seen, name=name: getattr(seen["result"].meta, name)
        for name in (*_lightning_logged._META, "metric_attribute", "reduce_fx", "is_mean_reduction")
    },
}


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return what is missing in the middle of a training, which a callback in it looks for."""
    folder = tmp_path_factory.mktemp("lightning")
    callbacks = [Timer("00:01:00:00"), ModelCheckpoint(folder / "saved"), ThroughputMonitor(batch_size_fn=len)]
    logs = [CSVLogger(folder), WandbLogger(project="tests", offline=True, save_dir=folder)]
    objects = {type(one): one for one in (*callbacks, *logs, StochasticWeightAveraging(0.1))}
    found = {}

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                result = next(iter(trainer.fit_loop.epoch_loop._results.values()))
                here = {**objects, "trainer": trainer, "result": result}
                found["owners"] = {name: lacking(name, place(here)) for name, place in PLACES.items()}
                found["errors"] = {text: error_of(read, here) for text, read in UNPROMISED.items()}

    data = DataLoader(TensorDataset(torch.zeros(8, 2)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[*callbacks, Look()],
        logger=logs,
        log_every_n_steps=1,
        default_root_dir=folder,
        val_check_interval="00:01:00:00",  # by the clock: only then is there a `_last_val_time`
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), data, data)
    return found


def lacking(name, owner):
    """Return the name of ``owner`` where it has no attribute ``name``."""
    return None if hasattr(owner, name) else getattr(owner, "__name__", type(owner).__name__)


def error_of(read, here):
    try:
        read(here)
    except AttributeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", PLACES)
def test_it_exists(seen, name):
    owner = seen["owners"][name]
    assert owner is None, (
        f"Lightning {lightning.__version__} has no `{name}` on {owner} any more; lightning_green/_lightning/trainer.py "
        "touches it. Find what took its place before this version is allowed in pyproject.toml."
    )


@pytest.mark.parametrize("text", UNPROMISED)
def test_what_nobody_promised_is_still_there(seen, text):
    assert seen["errors"][text] is None, (
        f"Lightning {lightning.__version__} has changed: it is no longer true that {text}; "
        "lightning_green/_lightning/trainer.py relies on it."
    )


def private_names(path):
    """Return the private attributes, imports and the names in `_LAST` that a file touches."""
    tree, found = ast.parse(path.read_text()), set()
    defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning."):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
    return {name for name in found if name.startswith("_") and not name.startswith("__")} - defined - OURS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_table_is_complete(path):
    names = private_names(path)
    assert names, "the search finds nothing at all"
    assert names - set(PLACES) == set(), "touched, and not looked for in this test"


def test_no_other_file_touches_them():
    package = Path(_lightning.__file__).parents[1]
    looked_for = set(PLACES) - {"_version", "_update_count"}  # a tensor and a torchmetric have these too
    touched = [
        f"{path.relative_to(package)}: {ast.unparse(node)}"
        for path in package.rglob("*.py")
        if path.parent.name != "_lightning"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in looked_for and ast.unparse(node.value) != "self"
    ]
    assert touched == []


def test_nothing_in_the_table_is_out_of_use():
    assert set(PLACES) - set().union(*map(private_names, FILES)) == set()


def test_other_loggers_and_clocks_have_it_too(tmp_path):
    assert hasattr(TensorBoardLogger(tmp_path), "_version")
    assert hasattr(TensorBoardLogger(tmp_path), "_experiment")
    assert hasattr(ModelCheckpoint(), "_last_time_checked")


def test_lightning_binds_log_before_the_loggers_experiments_exist(tmp_path):
    """The place where a run id can still be set, which no documentation promises."""
    order = []

    class Early(pl.Callback):
        log = _lightning.BeforeExperiment()

        def on_attach(self, trainer, module):
            order.append(("attach", logger._experiment))

        def setup(self, trainer, pl_module, stage):
            order.append(("setup", logger._experiment is not None))

    logger = CSVLogger(tmp_path)
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", callbacks=[Early()], logger=logger, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Net(), DataLoader(TensorDataset(torch.zeros(4, 2)), batch_size=2))
    assert order[0] == ("attach", None)
    assert order[-1] == ("setup", True)


@pytest.mark.parametrize(("every", "accumulate"), [(1, 1), (3, 1), (2, 3), (50, 1)])
def test_our_short_way_to_ask_whether_to_log_is_lightning_s_own(tmp_path, every, accumulate):
    asked = []

    class Compare(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            asked.append((_lightning.should_log(trainer), trainer._logger_connector.should_update_logs))

    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[Compare()], logger=CSVLogger(tmp_path), log_every_n_steps=every,
        accumulate_grad_batches=accumulate, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Net(), DataLoader(TensorDataset(torch.zeros(14, 2)), batch_size=2))
    assert len(asked) == 14
    assert [ours for ours, _ in asked] == [theirs for _, theirs in asked]


def test_user_handlers_are_found_below_lightning_s_own():
    def mine(number, frame):
        pass

    connector = _SignalConnector(pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    compose = importlib.import_module("lightning.pytorch.trainer.connectors.signal_connector")._HandlersCompose
    nested = compose([compose([mine, connector._sigterm_handler_fn]), connector._sigterm_notifier_fn])
    assert _lightning.user_handlers(nested) == [mine]

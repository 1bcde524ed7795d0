"""Every private attribute of Lightning that the package uses exists in the installed version.

The table lists the owner of each. A private attribute that the package uses and that is not in the table fails as well.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import lightning
import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    RichProgressBar,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import _lightning
from lightning_green._lightning import checkpoint, metric_results

FILES = sorted(path for path in Path(_lightning.__file__).parent.glob("*.py") if path.name != "__init__.py")
# attributes that the package defines itself
OURS = {"_combined", "_key", "_bound_", "_declared", "_own_loader", "_owner", "_name"}


class Configured(pl.LightningModule):
    def __init__(self, width=3):
        super().__init__()
        self.save_hyperparameters()


def wrapped_by_ddp():
    """Return a module in DDP, with a process group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        return DistributedDataParallel(nn.Linear(1, 1))
    finally:
        dist.destroy_process_group()


# attribute -> its owner, in the middle of a training
PLACES = {
    "_restarting": lambda seen: seen["trainer"].fit_loop.epoch_loop.val_loop,
    "_loaded_from_state_dict": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_resuming_from_checkpoint": lambda seen: seen["trainer"].fit_loop,
    "_run_sanity_check": lambda seen: seen["trainer"],
    "_checkpoint_connector": lambda seen: seen["trainer"],
    "_ckpt_path": lambda seen: seen["trainer"]._checkpoint_connector,
    "_loaded_checkpoint": lambda seen: seen["trainer"]._checkpoint_connector,
    "_pl_migrate_checkpoint": lambda seen: checkpoint.migration,
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
    "_val_check_time_interval": lambda seen: seen["trainer"],
    "_hparams": lambda seen: Configured(),
    "_hparams_name": lambda seen: Configured(),
    "_hparams_initial": lambda seen: Configured(),
    "_trainer": lambda seen: seen["trainer"].lightning_module,
    "_internal_optimizer_metadata": lambda seen: BackboneFinetuning(),
    "_last_val_time": lambda seen: seen["trainer"],
    "_start_time": lambda seen: seen[Timer],
    "_end_time": lambda seen: seen[Timer],
    "_last_time_checked": lambda seen: seen[ModelCheckpoint],
    "_t0s": lambda seen: seen[ThroughputMonitor],
    "_update_metrics": lambda seen: RichProgressBar(),
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
    "_step_supports_amp_scaling": lambda seen: torch.optim.SGD([nn.Parameter(torch.zeros(1))], fused=True),
    **dict.fromkeys(["_rebuild_buckets", "_autograd_hook"], lambda seen: torch.distributed.Reducer),
    "_get_ddp_logging_data": lambda seen: DistributedDataParallel,
    "_comm_hooks": lambda seen: wrapped_by_ddp(),
    "_model_averager": lambda seen: DDPStrategy(),
    "_should_reload_train_dl": lambda seen: seen["trainer"].fit_loop,
    "_should_reload_val_dl": lambda seen: seen["trainer"].fit_loop.epoch_loop.val_loop,
    "_should_check_val_epoch": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_after_closure": lambda seen: Precision,
    "_accelerator_connector": lambda seen: seen["trainer"],
    "_iterator": lambda seen: seen["trainer"].fit_loop._combined_loader,
    "_flattened": lambda seen: seen["trainer"].fit_loop._combined_loader,
    "_shutdown_workers_and_reset_iterator": lambda seen: importlib.import_module(
        "lightning.pytorch.utilities.combined_loader"
    ),
    "_SUPPORTED_MODES": lambda seen: importlib.import_module("lightning.pytorch.utilities.combined_loader"),
    "_load_combined_loader_states": lambda seen: seen["trainer"].fit_loop,
    "_consumed": lambda seen: iter(CombinedLoader([[1], [1, 2]], "max_size_cycle"))._iterator,
    "_version": lambda seen: seen[CSVLogger],
    "_experiment": lambda seen: seen[WandbLogger],
    "_get_next_version": lambda seen: seen[CSVLogger],
    "_wandb_init": lambda seen: seen[WandbLogger],
    "_offline": lambda seen: seen[WandbLogger],
    "_save_dir": lambda seen: seen[WandbLogger],
    "_root_dir": lambda seen: seen[CSVLogger],
    "_default_root_dir": lambda seen: seen["trainer"],
    "_id": lambda seen: seen[WandbLogger],
    "_run_id": lambda seen: assigned_in(MLFlowLogger.__init__),
    "_Loop": lambda seen: importlib.import_module("lightning.pytorch.loops.loop"),
    "_ProcessedTracker": lambda seen: importlib.import_module("lightning.pytorch.loops.progress"),
    "_timeout": lambda seen: DDPStrategy(),
    "_run_stage": lambda seen: seen["trainer"],
    "_broadcast_sigterm_tensor": lambda seen: seen["trainer"].fit_loop.epoch_loop,
    "_get_default_store": lambda seen: torch.distributed.distributed_c10d,
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

# private names that files outside `_lightning` use and do not define, and that do not belong to Lightning
NOT_OF_LIGHTNING = {
    "_exit",  # of the standard library: the end of a process without its clean-up
    "_ex_iterable",  # of a stream of Hugging Face
    # torch
    *("_ConvNd", "_NormBase", "_orig_mod", "_persistent", "_pytree", "_parameters", "_buffers", "_modules"),
    *("_foreach_addcmul_", "_foreach_mul_", "_foreach_norm", "_milestones", "_schedule_phases", "_schedulers"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_MapDatasetFetcher", "_IterableDatasetFetcher", "_num_yielded"),
    *("_version", "_decomposed", "_assert_tensor_metadata"),
    *("_computed", "_defaults", "_update_count"),  # torchmetrics
    *("_get_gpu_ids", "_hardware", "_mode", "_scheduler", "_scheduler_monitor_power", "_timer"),  # codecarbon
    *("_asdict", "_fields", "_lru_cache_wrapper", "_name_", "_replace", "_value_"),  # the standard library
    # Strings that are not attributes: ends of the names of variables, files, buffers and metrics, and a field of JSON.
    *("_PID", "_PORT", "_SOCK", "_name", "_power_limit_uw", "_bias", "_scale", "_weight", "_zero"),
    *("_kwh", "_marginal", "_disclaimer"),
    "_lightning_green_fit",  # an attribute of a Trainer that the package sets
}

# public names without documentation: a statement about Lightning, and the access that has to work
UNDOCUMENTED = {
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
    "strategies have `setup_environment`": lambda seen: seen["trainer"].strategy.setup_environment,
    "launchers of processes have `get_extra_results`": lambda seen: _MultiProcessingLauncher.get_extra_results,
    "the fit loop has `on_advance_start`": lambda seen: seen["trainer"].fit_loop.on_advance_start,
    "the fit loop has `on_run_end`": lambda seen: seen["trainer"].fit_loop.on_run_end,
    "the epoch's loop has `on_run_start`": lambda seen: seen["trainer"].fit_loop.epoch_loop.on_run_start,
    "the epoch's loop has `on_advance_end`": lambda seen: seen["trainer"].fit_loop.epoch_loop.on_advance_end,
    "a logged mean has `cumulated_batch_size`": lambda seen: seen["result"].cumulated_batch_size,
    "a logged value has `has_reset`": lambda seen: seen["result"].has_reset,
    **{
        f"the metadata of a logged value have `{name}`": lambda seen, name=name: getattr(seen["result"].meta, name)
        for name in (*metric_results._META, "metric_attribute", "reduce_fx", "is_mean_reduction")
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
    """Return the attributes that a callback finds missing in the middle of a training."""
    folder = tmp_path_factory.mktemp("lightning")
    callbacks = [Timer("00:01:00:00"), ModelCheckpoint(folder / "saved"), ThroughputMonitor(batch_size_fn=len)]
    logs = [CSVLogger(folder), WandbLogger(project="tests", offline=True, save_dir=folder)]
    objects = {type(one): one for one in (*callbacks, *logs, StochasticWeightAveraging(0.1))}
    found = {}

    class Inspect(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                result = next(iter(trainer.fit_loop.epoch_loop._results.values()))
                here = {**objects, "trainer": trainer, "result": result}
                found["owners"] = {name: missing_owner(name, place(here)) for name, place in PLACES.items()}
                found["errors"] = {text: error_of(read, here) for text, read in UNDOCUMENTED.items()}

    data = DataLoader(TensorDataset(torch.zeros(8, 2)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[*callbacks, Inspect()],
        logger=logs,
        log_every_n_steps=1,
        default_root_dir=folder,
        val_check_interval="00:01:00:00",  # only a time interval sets `_last_val_time`
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), data, data)
    return found


def assigned_in(function):
    """Return an object with the attributes that a method assigns; for a class whose package may not be installed."""
    return SimpleNamespace(**dict.fromkeys(re.findall(r"self\.(\w+)\b.* = ", inspect.getsource(function))))


def missing_owner(name, owner):
    """Return the name of ``owner`` if it has no attribute ``name``, else None."""
    return None if hasattr(owner, name) else getattr(owner, "__name__", type(owner).__name__)


def error_of(read, here):
    try:
        read(here)
    except AttributeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", PLACES)
def test_private_attribute_exists(seen, name):
    owner = seen["owners"][name]
    assert owner is None, (
        f"Lightning {lightning.__version__} has no `{name}` on {owner}, which lightning_green/_lightning uses. "
        "Find the replacement before pyproject.toml allows this version."
    )


@pytest.mark.parametrize("text", UNDOCUMENTED)
def test_undocumented_name_exists(seen, text):
    assert seen["errors"][text] is None, (
        f"Lightning {lightning.__version__} has changed: it is no longer true that {text}, which "
        "lightning_green/_lightning uses."
    )


def private_names(path):
    """Return the private attributes, imports and the names in strings that a file uses."""
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
def test_table_lists_every_private_name_of_a_file(path):
    assert private_names(path) - set(PLACES) == set(), "used, and not in the table"


def test_search_finds_private_names():
    found = {path.name: private_names(path) for path in FILES}
    without = {"namespaces.py", "planned_exit.py", "replaced.py", "training_steps.py"}
    assert {name for name, names in found.items() if not names} <= without


def used_names(path):
    """Return the private names of attributes, imports and strings in a file, with the expression that contains each."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.append((node.attr, ast.unparse(node)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.append((node.value, repr(node.value)))
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("lightning_green"):
            found += [(alias.name, f"{node.module}.{alias.name}") for alias in node.names]
    return {
        (name, text)
        for name, text in found
        if name.strip("_") and name.startswith("_") and not name.startswith("__") and text != f"self.{name}"
    }


def defined_names(path):
    """Return the names of a file's functions, classes, variables and attributes of ``self``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def unknown_names(path):
    """Return the private names of a file that neither it nor a listed package other than Lightning defines."""
    own = set(defined_names(path)) - set(PLACES)
    return {(name, text) for name, text in used_names(path) if name not in own | NOT_OF_LIGHTNING}


def test_no_other_package_uses_private_attributes_of_lightning():
    package = Path(_lightning.__file__).parents[1]
    others = {str(path.relative_to(package)): path for path in package.rglob("*.py") if path not in FILES}
    found = {(file, *use) for file, path in others.items() for use in unknown_names(path)}
    assert found == set(), "Read names of Lightning in lightning_green/_lightning, and list those of other packages."
    used = {name for path in others.values() for name, _ in used_names(path)}
    assert NOT_OF_LIGHTNING - used == set(), "listed, and not used"


@pytest.mark.parametrize(
    "code",
    [
        "trainer._last_val_time",
        'getattr(trainer, "_last_val_time")',
        "trainer._not_in_the_table",
        'getattr(trainer, "_not_in_the_table", None)',
        "from lightning.pytorch.core import _not_in_the_table",
        "self._results = trainer._results",
    ],
)
def test_guard_finds_attributes_strings_and_imports(tmp_path, code):
    (tmp_path / "module.py").write_text(code)
    assert unknown_names(tmp_path / "module.py")


def test_table_lists_no_unused_name():
    assert set(PLACES) - set().union(*map(private_names, FILES)) == set()


def test_other_loggers_and_callbacks_have_the_same_attributes(tmp_path):
    assert hasattr(TensorBoardLogger(tmp_path), "_version")
    assert hasattr(TensorBoardLogger(tmp_path), "_experiment")
    assert hasattr(ModelCheckpoint(), "_last_time_checked")

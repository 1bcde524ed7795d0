"""Several fits in a script: each is continued, or restored with every value that the script reads."""

import json
import sys
from datetime import datetime

import pytest

from lightning_green.ledger.account import account_by_fit
from lightning_green.ledger.run_directory import RunDirectory
from tests.helpers.ledgers import events_of, read_records, total_of
from tests.helpers.script_training import CLOCK
from tests.helpers.user_scripts import K_FOLD, results, runs, script, start, steps_continued, straight, supervised

pytestmark = pytest.mark.slow

TWICE = """
pl.seed_everything(0, verbose=False)
module = Net(label="first")
one = trainer(*CALLBACKS, num_sanity_val_steps=2)
before = one.validate(module, loader(8, 1), verbose=False)
one.fit(module, loader(), loader(8, 1))
report("first", one, module, before=str(before))
one.fit_loop.max_epochs = 4
module.label = "second"
one.fit(module, loader(), loader(8, 1))
report("second", one, module)
"""

FINE_TUNE = """
pl.seed_everything(0, verbose=False)
def best():
    return pl.callbacks.ModelCheckpoint("same", monitor="val_loss", filename="best")
module = Net(label="warm-up")
one = trainer(best(), *CALLBACKS)
one.fit(module, loader(), loader(8, 1))
report("warm-up", one, module)
module = Net.load_from_checkpoint(one.checkpoint_callback.best_model_path, lr=1e-3, label="fine")
another = trainer(best(), *CALLBACKS)
another.fit(module, loader(), loader(8, 1))
os.unlink(one.checkpoint_callback.best_model_path)  # saves room
report("fine", another, module, tested=str(another.test(Test(), loader(8, 1), verbose=False)))
if once("the end"):
    raise OSError("export failed")
"""

TEST = """
class Test(Net):
    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.net(batch[0]).square().mean())
"""

STUDY = """
import random
import time
trials = json.loads(Path("study").read_text()) if os.path.exists("study") else []
pl.seed_everything(0, verbose=False)
sampler = random.Random(time.time())  # without a seed: another value after a restart
while len(trials) < 2:
    lr = 0.01 * (1 + sampler.random())
    module = Net(lr, label=f"trial {len(trials)}")
    one = trainer(*CALLBACKS)
    one.fit(module, loader())
    trials.append([lr, one.optimizers[0].param_groups[0]["lr"], module.trained])
    Path("study").write_text(json.dumps(trials))
"""

THREADS = """
import threading

class Plain(Net):  # global random numbers would come in any order
    def __init__(self, number):
        super().__init__(label=f"thread {number}")
        self.net = nn.Linear(4, 1)
        nn.init.constant_(self.net.weight, 0.5)
        nn.init.zeros_(self.net.bias)

def train(number):
    module = Plain(number)
    one = trainer(*CALLBACKS, enable_checkpointing=True, default_root_dir=f"root{number}")
    one.fit(module, DataLoader(data(24, number), 4))
    report(module.label, one, module)

threads = [threading.Thread(target=train, args=(number,), name=f"training {number}") for number in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

TUNED = """
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

class Tuned(Net):
    batch_size = 4
    def train_dataloader(self):
        return DataLoader(data(), self.batch_size, shuffle=True)
    def val_dataloader(self):
        return DataLoader(data(8, 1), self.batch_size)

pl.seed_everything(0, verbose=False)
module = Tuned()
HOW
one.fit(module)
report("only", one, module, lr=module.lr, size=module.batch_size, found=repr(FOUND))
"""
HOWS = {
    "lr_find": (
        "one = trainer(*CALLBACKS)\nfinder = Tuner(one).lr_find(module, num_training=20)",
        "finder.suggestion()",
    ),
    "scale_batch_size": (
        "one = trainer(*CALLBACKS)\nsize = Tuner(one).scale_batch_size(module, max_trials=1, steps_per_trial=2)",
        "size",
    ),
    "LearningRateFinder": (
        "finder = LearningRateFinder(num_training_steps=20)\none = trainer(finder, *CALLBACKS)",
        "finder.optimal_lr.suggestion()",
    ),
    "BatchSizeFinder": (
        "finder = BatchSizeFinder(max_trials=1, steps_per_trial=2)\none = trainer(finder, *CALLBACKS)",
        "finder.optimal_batch_size",
    ),
}


def both(tmp_path, text, callbacks="exact()", options=(), **variables):
    """Run a script straight and supervised; return both results by label, and what was trained when supervised."""
    alone, _ = straight(tmp_path / "alone", script(tmp_path / "alone", text, callbacks))
    path = script(tmp_path / "parts", text, callbacks)
    code, output = supervised(tmp_path / "parts", sys.executable, path, options=options, **variables)
    assert code == 0, output
    seen, trained = results(tmp_path / "parts")
    return alone, seen, trained


def test_paused_folds_end_like_uninterrupted_folds(tmp_path):
    alone, seen, trained = both(tmp_path, K_FOLD, "carbon()", ["--clock", CLOCK.replace("batch=600", "batch=900")])
    assert seen == alone
    assert len(steps_continued(tmp_path / "parts" / "run")) >= 3
    assert trained["fold 0"][-1] == 0
    (records,) = runs(tmp_path / "parts" / "run")
    books = total_of(records)
    assert books.kwh > 0
    account = account_by_fit(events_of(records))[0]
    account.settle()
    first = account.totals
    ends = [record["time_utc"] for record in records if record["event"] == "finished" and record["fit"] == 0]
    assert len(ends) > 1  # it was restored
    assert first.last_time == datetime.fromisoformat(ends[0]).timestamp()
    assert books.exits == len(steps_continued(tmp_path / "parts" / "run"))


def test_trainer_that_fits_twice_is_continued(tmp_path):
    alone, seen, trained = both(tmp_path, TWICE, FAULT="kill@second:17")
    assert seen == alone
    assert trained["first"] == [12, 0]
    assert [step for step in steps_continued(tmp_path / "parts" / "run") if step > 12]


@pytest.mark.nightly
def test_best_checkpoint_of_a_finished_fit_is_restored(tmp_path):
    text = TEST + FINE_TUNE
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "the end.once").touch()
    alone, seen, trained = both(tmp_path, text, FAULT="kill@fine:5")
    assert seen == alone
    assert trained["warm-up"] == [12, 0, 0]
    assert not (tmp_path / "parts" / "run" / "kept").exists()  # nothing is restored any more


def test_resampled_trials_are_not_mistaken_for_earlier_ones(tmp_path):
    path = script(tmp_path, STUDY)
    code, output = supervised(tmp_path, sys.executable, path, FAULT="kill@trial 1:7")
    assert code == 0, output
    for lr, used, trained in json.loads((tmp_path / "study").read_text()):
        assert lr == used
        assert trained == 12  # no trial got the weights of another one
    assert steps_continued(tmp_path / "run") == []


def test_fits_in_threads_are_distinguished(tmp_path):
    alone, seen, _ = both(tmp_path, THREADS, FAULT="kill@thread 1:7")
    assert seen == alone
    assert len({one["weights"] for one in seen.values()}) == 2
    assert len(steps_continued(tmp_path / "parts" / "run")) >= 1


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("how", HOWS)
def test_tuner_is_not_part_of_the_fit(how, tmp_path):
    line, found = HOWS[how]
    text = TUNED.replace("HOW", line).replace("FOUND", found)
    without, _ = straight(tmp_path / "without", script(tmp_path / "without", text, "[]"))
    path = script(tmp_path / "parts", text)
    given = {"FAULT": "kill@only:7", "LIGHTNING_GREEN_RESUME": "1"}
    assert start(tmp_path / "parts", sys.executable, path, **given)[0] == -9
    code, output = start(tmp_path / "parts", sys.executable, path, **given)
    assert code == 0, output
    seen, _ = results(tmp_path / "parts")
    assert seen == without
    (home,) = (tmp_path / "parts" / "lightning_green").iterdir()
    assert len(steps_continued(home)) == 1
    assert {record.get("fit") for record in read_records(home)} <= {0, None}
    assert set(RunDirectory(home).record["fits"]) == {"0"}


SHARED_LOADERS = """
pl.seed_everything(0, verbose=False)
train = DataLoader(data(), 4, shuffle=True, generator=torch.Generator().manual_seed(1))
validation = DataLoader(data(12, 5), 4, shuffle=True, generator=torch.Generator().manual_seed(2))
module = Net(label="a")
for label in "ab":
    module.label = label
    one = trainer(*CALLBACKS, limit_val_batches=1)
    one.fit(module, train, validation)
    report(label, one, module)
"""


@pytest.mark.sampled(every=3)
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error@b:1", "kill@a:5", "kill@b:8"])
def test_loaders_that_two_fits_share_continue_their_generators(fault, tmp_path):
    """The second fit draws from the generators where the first one left them; validation takes the first batch only."""
    alone = straight(tmp_path / "alone", script(tmp_path / "alone", SHARED_LOADERS))[0]
    path = script(tmp_path, SHARED_LOADERS)
    code, printed = supervised(tmp_path, sys.executable, path, FAULT=fault)
    assert code == 0, printed
    assert results(tmp_path)[0] == alone

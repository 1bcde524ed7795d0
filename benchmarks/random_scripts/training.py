"""The text of `train.py`."""

from __future__ import annotations

from textwrap import dedent, indent

from random_scripts.choices import AWKWARD, ONE_MODULE, OPTIMIZERS, PASSES, Fit, Scenario
from random_scripts.template import HEAD


def render(made: Scenario) -> str:
    """Return the text of `train.py`."""
    arguments = [f"{name}={default}" for name, default in _DEFAULTS.items() if name in _parameters(made)]
    initialize = (
        "generator = torch.Generator().manual_seed(start)\n"
        "        for parameter in self.parameters():\n"
        "            parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)"
    )
    shuffle = {
        "global": "shuffle=True",
        "generator": "shuffle=True, generator=torch.Generator().manual_seed(part)",
        "": "shuffle=False",
    }
    head = HEAD.format(
        index=made.index,
        seed=made.seed,
        summary=made.describe(),
        shuffle=shuffle[made.shuffle],
        arguments=", ".join(arguments),
        hparams="self.save_hyperparameters()" if made.hparams else "# no hyperparameters are saved",
        part="\n        self.part = part" if made.tuned else "",
        dropout="nn.Dropout(0.2), " if made.dropout else "",
        initialize="# the weights are those of seed_everything" if made.seeded else initialize,
        optimizer=OPTIMIZERS[made.optimizer],
        dataloaders=indent(dedent(_DATALOADERS), "    ") if made.tuned else "",
        write=_PRINT if made.driver is not None and made.driver.distinguished_by == "nothing" else _APPEND,
    )
    return f"{head}{_settings(made)}{_body(made)}"


_DATALOADERS = """
    def train_dataloader(self):
        return loaders(self.part)[0]

    def val_dataloader(self):
        return loaders(self.part)[1]
"""
_DEFAULTS = {"lr": 0.05, "width": 8, "start": 0, "part": 0, **dict.fromkeys(AWKWARD)}
_PRINT = "print(json.dumps(line), flush=True)  # the driver redirects it"
_APPEND = 'with open("results.jsonl", "a") as file:\n        file.write(json.dumps(line) + "\\n")'


def _settings(made: Scenario) -> str:
    """Return the lines that read what distinguishes the processes, and the one that seeds."""
    by = "" if made.driver is None else made.driver.distinguished_by
    lines = {
        "env": 'SEED = int(os.environ["SEED"])\n',
        "cwd": 'SEED = int(Path("seed.txt").read_text())\n',
        "seed": 'parser = argparse.ArgumentParser()\nparser.add_argument("--seed", type=int)\n'
        "SEED = parser.parse_args().seed\n",
        "lr": 'parser = argparse.ArgumentParser()\nparser.add_argument("--lr", type=float)\n'
        "LR = parser.parse_args().lr\n",
    }.get(by, "")
    if made.seeded == "once":
        lines += f"pl.seed_everything({'SEED' if 'SEED' in lines else 7})\n"
    return lines


def _body(made: Scenario) -> str:
    if made.structure not in PASSES:
        return "\n".join(_fit(made, number) for number in range(len(made.fits))) + '\nfault("end", label)\n'
    passes = "\n".join(_fit(made, number) for number in range(len(made.fits)))
    if made.structure == "threads":
        body = f"\ndef work(n):\n{indent(passes, '    ')}\n\n"
        if made.pool:
            body += f"with ThreadPoolExecutor({made.count}) as pool:\n"
            body += f"    for future in [pool.submit(work, n) for n in range({made.count})]:\n        future.result()\n"
        else:
            body += f"threads = [threading.Thread(target=work, args=(n,)) for n in range({made.count})]\n"
            body += "for thread in threads:\n    thread.start()\nfor thread in threads:\n    thread.join()\n"
        return f'{body}fault("end", "thread{made.count - 1}")\n'
    return (
        f"scores = []\nfor n in range({made.count}):\n{indent(passes, '    ')}"
        '    scores.append(float(trainer.callback_metrics.get("val_loss", 0.0)))\n\n'
        'write({"fit": "scores", "metrics": [score.hex() for score in scores]})\nfault("end", label)\n'
    )


def _fit(made: Scenario, number: int) -> str:
    """Return the lines of one fit: module, Trainer, fit and report."""
    fit, one_module = made.fits[number], made.structure in ONE_MODULE and number > 0
    lines = [f"# fit {fit.name}", f"label = {_label(made, fit)}"]
    values = _values(made, fit)
    if made.seeded == "each" and not one_module:
        lines.append(f"pl.seed_everything({values['start']})")
    if one_module and made.structure != "twice":
        if made.finetune == "from_best":
            path = "trainer.checkpoint_callback.best_model_path"
            lines.append(f"module = Regression.load_from_checkpoint({path}, weights_only=False)")
        lines.append(f"module.lr = {values['lr']}")
    elif not one_module:
        given = {**values, **AWKWARD}
        arguments = [f"{name}={given[name]}" for name in _parameters(made)]
        lines.append(f"module = Regression({', '.join(arguments)})")
    if not one_module or not made.shares_loader:
        lines.append(f"train, validation = loaders({values['part']})")
    if one_module and made.structure == "twice":
        lines += ["probe.label, probe.steps = label, 0", f"trainer.fit_loop.max_epochs += {fit.epochs}"]
    else:
        lines += [*_trainer(made, fit, values)]
    if fit.tuner:
        lines.append(
            "finder = Tuner(trainer).lr_find(module, min_lr=1e-3, max_lr=0.5, num_training=6, update_attr=False)"
        )
        lines.append("module.lr = finder.suggestion(skip_begin=1, skip_end=1) or module.lr")
    given = "module" if made.tuned else "module, train, validation"
    lines += ['fault("before", label)', f"trainer.fit({given})", 'fault("after", label)']
    lines.append("report(label, trainer, module, probe)")
    if fit.after:
        options = {"validate": "", "test": ', ckpt_path="best", weights_only=False'}[fit.after]
        lines.append(f"found = trainer.{fit.after}(module, validation{options}, verbose=False)")
        lines.append(f'write({{"fit": f"{{label}} {fit.after}", "metrics": as_hex(found[0])}})')
    return "\n".join(lines) + "\n"


def _parameters(made: Scenario) -> list[str]:
    """Return the parameters of the module: a value that has no effect on the module is none of them."""
    names = ["lr", "width", *([] if made.seeded else ["start"]), *(["part"] if made.tuned else [])]
    return [*names, *(name for name in made.hparams if name in AWKWARD)]


def _label(made: Scenario, fit: Fit) -> str:
    by = "" if made.driver is None else made.driver.distinguished_by
    if made.structure in PASSES:
        name = f"-{fit.name}" if made.structure == "loop_finetune" else ""
        return f'f"{PASSES[made.structure]}{{n}}{name}"'
    prefix = {"": "", "nothing": "", "lr": "lr{LR}-"}.get(by, "seed{SEED}-")
    return f'f"{prefix}{fit.name}"' if prefix else f'"{fit.name}"'


def _values(made: Scenario, fit: Fit) -> dict[str, str]:
    """Return the expressions of what a fit trains."""
    values = {name: str(getattr(fit, name)) for name in ("lr", "width", "start", "part")}
    if made.structure in PASSES:
        varies = "part" if made.structure == "loop_finetune" and made.varies == "width" else made.varies
        values[varies] = {"lr": f"{fit.lr} / (n + 1)", "width": "n + 6"}.get(varies, "n")
    elif made.driver is not None and made.driver.distinguished_by == "lr":
        values["lr"] = "LR"
    elif made.driver is not None and made.driver.distinguished_by != "nothing":
        values["start"] = "SEED"
    return values


def _trainer(made: Scenario, fit: Fit, values: dict[str, str]) -> list[str]:
    """Return the lines that make the callbacks and the Trainer."""
    alternates = made.structure in PASSES and made.alternates
    meter = "(100, 300)[n % 2]" if alternates else str(fit.meter)
    deadline = '("36h", "72h")[n % 2]' if alternates else f'"{fit.deadline}"'
    green = []
    if "scheduler" in fit.green:
        green.append(f"EmissionsTracker(grid=TRACE, meter={meter})")
        green.append(f"CarbonScheduler(deadline={deadline}, resume_cost=0.001, hold_power=0.9)")
    if "exact" in fit.green:
        green.append(f"ExactResume(every={fit.every})")
    callbacks = ["probe", 'ModelCheckpoint(monitor="val_loss")'] if fit.monitor else ["probe"]
    if fit.early_stopping:
        callbacks.append('EarlyStopping("val_loss", patience=50)')
    own_directory = made.structure == "threads" or (
        made.driver is not None and made.driver.distinguished_by != "nothing"
    )
    logger = "CSVLogger(label)" if own_directory else 'CSVLogger(".")'
    return [
        "green = []",
        "if GREEN:",
        "    green = [",
        *(f"        {callback}," for callback in green),
        "    ]",
        "probe = Probe(label)",
        "trainer = pl.Trainer(",
        '    accelerator="cpu",',
        "    devices=1,",
        f"    max_epochs={fit.epochs},",
        f"    logger={logger if fit.csv else False},",
        *(["    default_root_dir=label,"] if own_directory else []),
        f"    callbacks=[{', '.join(callbacks)}, *green],",
        "    log_every_n_steps=1,",
        "    enable_progress_bar=False,",
        "    enable_model_summary=False,",
        ")",
    ]

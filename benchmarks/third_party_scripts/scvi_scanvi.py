"""Two trainings with scvi-tools: SCVI, then SCANVI from its weights."""

import scvi
from recording import callbacks, report

SAVED = {"check_val_every_n_epoch": 1, "enable_checkpointing": True, "checkpointing_monitor": "elbo_validation"}

scvi.settings.seed = 0
cells = scvi.data.synthetic_iid(batch_size=120, n_genes=40)
scvi.model.SCVI.setup_anndata(cells, batch_key="batch", labels_key="labels")
first = scvi.model.SCVI(cells, n_hidden=16, n_latent=4)
first.train(max_epochs=3, batch_size=30, accelerator="cpu", callbacks=callbacks(), **SAVED)
report(first.module)
second = scvi.model.SCANVI.from_scvi_model(first, unlabeled_category="label_0")
second.train(
    max_epochs=4,
    batch_size=30,
    n_samples_per_label=20,
    accelerator="cpu",
    plan_kwargs={"lr": 0.01},
    callbacks=callbacks(),
    **SAVED,
)
report(second.module, labels=list(second.predict(cells)))

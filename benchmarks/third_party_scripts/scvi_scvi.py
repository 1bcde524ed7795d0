"""A variational autoencoder of single cells with scvi-tools."""

import scvi
from recording import callbacks, report

scvi.settings.seed = 0
cells = scvi.data.synthetic_iid(batch_size=120, n_genes=40)
scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
model = scvi.model.SCVI(cells, n_hidden=16, n_latent=4)
model.train(
    max_epochs=5,
    batch_size=20,
    accelerator="cpu",
    enable_checkpointing=True,
    check_val_every_n_epoch=1,
    early_stopping=True,
    callbacks=callbacks(),
)
report(model.module, latent=model.get_latent_representation(), history=model.history["elbo_train"].to_numpy())

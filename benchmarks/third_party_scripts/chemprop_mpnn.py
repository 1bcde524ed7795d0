"""Regression of a property of molecules with the message passing network of chemprop."""

import numpy as np
from chemprop import data, featurizers, models, nn
from lightning import pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from recording import callbacks, report

pl.seed_everything(0)
SMILES = [f"{'C' * a}{middle}{'C' * b}" for a in range(1, 8) for b in range(1, 6) for middle in ("O", "N", "S", "C=C")]
points = [data.MoleculeDatapoint.from_smi(one, np.array([len(one) + one.count("O")], float)) for one in SMILES]
indices = data.make_split_indices(points, "random", (0.8, 0.1, 0.1))
train, validation, test = data.split_data_by_indices(points, *indices)
featurizer = featurizers.SimpleMoleculeMolGraphFeaturizer()
train_set = data.MoleculeDataset(train[0], featurizer)
scaler = train_set.normalize_targets()
validation_set = data.MoleculeDataset(validation[0], featurizer)
validation_set.normalize_targets(scaler)
test_set = data.MoleculeDataset(test[0], featurizer)

network = models.MPNN(
    nn.BondMessagePassing(d_h=32, depth=2, dropout=0.1),
    nn.MeanAggregation(),
    nn.RegressionFFN(input_dim=32, output_transform=nn.UnscaleTransform.from_standard_scaler(scaler)),
    batch_norm=True,
    metrics=[nn.metrics.RMSE(), nn.metrics.MAE()],
)
trainer = pl.Trainer(
    logger=False,
    accelerator="cpu",
    devices=1,
    max_epochs=4,
    callbacks=[ModelCheckpoint("checkpoints", "best-{epoch}-{val_loss:.2f}", "val_loss", save_last=True), *callbacks()],
)
train_loader = data.build_dataloader(train_set, batch_size=10, num_workers=0)
validation_loader = data.build_dataloader(validation_set, batch_size=10, num_workers=0, shuffle=False)
trainer.fit(network, train_loader, validation_loader)
found = trainer.test(network, data.build_dataloader(test_set, num_workers=0, shuffle=False), weights_only=False)
report(network, test=found)

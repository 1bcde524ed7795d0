"""Graph classification with a graph network of torch_geometric in a LightningModule."""

import lightning.pytorch as pl
import torch
from recording import callbacks, report
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool

pl.seed_everything(0, workers=True)


def graphs(count):
    """Return random graphs; the class is whether their nodes have positive features."""
    generator = torch.Generator().manual_seed(count)
    made = []
    for _ in range(count):
        x = torch.randn(12, 8, generator=generator)
        edges = torch.randint(0, 12, (2, 40), generator=generator)
        made.append(Data(x=x, edge_index=edges, y=(x.mean() > 0).long().reshape(1)))
    return made


class GraphNet(pl.LightningModule):
    def __init__(self, width=32):
        super().__init__()
        self.save_hyperparameters()
        self.first, self.second = GCNConv(8, width), GCNConv(width, width)
        self.head = torch.nn.Linear(width, 2)

    def forward(self, data):
        x = functional.relu(self.first(data.x, data.edge_index))
        x = functional.dropout(x, 0.3, self.training)
        x = functional.relu(self.second(x, data.edge_index))
        return self.head(global_mean_pool(x, data.batch))

    def training_step(self, data, batch_idx):
        loss = functional.cross_entropy(self(data), data.y)
        self.log("train_loss", loss, batch_size=data.num_graphs, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, data, batch_idx):
        self.log("val_loss", functional.cross_entropy(self(data), data.y), batch_size=data.num_graphs)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01, weight_decay=5e-4)


model = GraphNet()
trainer = pl.Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks(), log_every_n_steps=1)
trainer.fit(model, DataLoader(graphs(160), batch_size=16, shuffle=True), DataLoader(graphs(32), batch_size=16))
report(model)

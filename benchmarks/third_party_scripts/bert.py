"""Fine-tuning of a BERT of transformers for classification, with random weights: nothing is downloaded."""

import lightning.pytorch as pl
import torch
from recording import callbacks, report
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

pl.seed_everything(0, workers=True)


class Sentences(Dataset):
    def __init__(self, count):
        self.ids = torch.randint(5, 200, (count, 16), generator=torch.Generator().manual_seed(count))
        self.labels = (self.ids.float().mean(1) > 100).long()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {
            "input_ids": self.ids[index],
            "attention_mask": torch.ones(16, dtype=torch.long),
            "labels": self.labels[index],
        }


class FineTuning(pl.LightningModule):
    def __init__(self, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        config = BertConfig(
            vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
        )
        self.model = BertForSequenceClassification(config)

    def training_step(self, batch, batch_idx):
        loss = self.model(**batch).loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        output = self.model(**batch)
        self.log("val_loss", output.loss)
        self.log("val_accuracy", (output.logits.argmax(1) == batch["labels"]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        scheduler = get_linear_schedule_with_warmup(optimizer, 4, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


model = FineTuning()
trainer = pl.Trainer(max_epochs=4, accelerator="cpu", callbacks=callbacks(), log_every_n_steps=1)
trainer.fit(
    model,
    DataLoader(Sentences(160), batch_size=16, shuffle=True),
    DataLoader(Sentences(32), batch_size=16),
)
report(model)

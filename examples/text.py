"""A small language model: a transformer that predicts the next character of a text.

python examples/text.py                                  # its own source code is the text
lightning-green run -- python examples/text.py --text book.txt --epochs 20 --deadline 12h
"""

import argparse
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_green import CarbonScheduler, EmissionsTracker, GreenMixedPrecision


class Characters(Dataset):
    """Windows of a text as numbers; ``length`` inputs, and the same moved by one as targets."""

    def __init__(self, text: str, vocabulary: str, length: int) -> None:
        self.data = torch.tensor([vocabulary.index(one) for one in text])
        self.length = length

    def __len__(self) -> int:
        return max(0, len(self.data) - self.length - 1)

    def __getitem__(self, index):
        part = self.data[index : index + self.length + 1]
        return part[:-1], part[1:]


class LanguageModel(pl.LightningModule):
    def __init__(self, size: int, length: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(size, width), nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, size)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.head(self.layers(self.tokens(x) + self.positions[: x.shape[1]], mask=mask, is_causal=True))

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self(x).flatten(0, 1), y.flatten())

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--text", type=Path, default=Path(__file__))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--grid", default="typical:DE")
    parser.add_argument("--deadline", default=None, help="such as 12h; without one the run does not wait")
    arguments = parser.parse_args()

    pl.seed_everything(0)
    text = arguments.text.read_text(encoding="utf-8")
    vocabulary, cut = "".join(sorted(set(text))), int(0.9 * len(text))
    train = Characters(text[:cut], vocabulary, arguments.length)
    validation = Characters(text[cut:], vocabulary, arguments.length)
    model = LanguageModel(len(vocabulary), arguments.length)
    tracker = EmissionsTracker(grid=arguments.grid)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[tracker, CarbonScheduler(deadline=arguments.deadline)],
        plugins=[GreenMixedPrecision("auto", keep_fp32=["head"])],
        gradient_clip_val=1.0,
        logger=False,
    )
    trainer.fit(model, DataLoader(train, 64, shuffle=True), DataLoader(validation, 64))
    tokens = trainer.global_step * 64 * arguments.length
    kwh = tracker.summary()["energy/kwh"]
    print(f"validation loss {trainer.callback_metrics['val_loss']:.3f} after {tokens:,} tokens")
    if kwh:
        print(f"{3.6e6 * kwh / tokens:.2g} J for each token of the training")

"""Networks of the shape of Hugging Face's: called by keyword with labels, with containers of tensors as outputs."""

from collections import OrderedDict
from dataclasses import dataclass, fields

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


@dataclass
class ModelOutput(OrderedDict):
    """A dataclass whose fields that are not None are items as well."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self):
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)


@dataclass
class Prediction:
    loss: Tensor | None
    logits: Tensor


class TokenClassifier(nn.Module):
    """A classifier of token sequences with a loss of labels.

    Args:
        width: Width of the embedding.
        returns: Container of the outputs: "model_output", "dataclass", "dict" or "tuple".

    """

    def __init__(self, width=16, returns="model_output"):
        super().__init__()
        self.returns = returns
        self.embedding = nn.Embedding(20, width)
        self.encoder = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(width, 3)

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None, return_dict=None):
        hidden = torch.relu(self.encoder(self.embedding(input_ids)))
        weights = attention_mask[..., None].to(hidden.dtype)
        logits = self.classifier(self.dropout((hidden * weights).sum(1) / weights.sum(1)))
        loss = None if labels is None else functional.cross_entropy(logits.view(-1, 3), labels.view(-1))
        if self.returns == "model_output":
            return ModelOutput(loss=loss, logits=logits)
        if self.returns == "dataclass":
            return Prediction(loss, logits)
        if self.returns == "dict":
            return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}
        return (logits,) if loss is None else (loss, logits)


def loss_of(output):
    """Return the loss of an output in any of the containers."""
    if isinstance(output, tuple):
        return output[0]
    return output["loss"] if isinstance(output, dict) else output.loss


def logits_in(output):
    """Return the logits of an output in any of the containers."""
    if isinstance(output, tuple):
        return output[-1]
    return output["logits"] if isinstance(output, dict) else output.logits


class Sentences(Dataset):
    """Token sequences whose class is that of their first token."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        ids = torch.randint(1, 20, (6,), generator=torch.Generator().manual_seed(index))
        mask = torch.ones(6, dtype=torch.long)
        mask[5] = index % 2
        return {"input_ids": ids, "attention_mask": mask, "labels": ids[0] % 3}


def sentences(batch=8):
    return DataLoader(Sentences(), batch)


class LitTokens(pl.LightningModule):
    """Trains a network that computes its own loss: ``self.model(**batch)``."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        return loss_of(self.model(**batch))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", loss_of(self.model(**batch)))

    def predict_step(self, batch, batch_idx):
        return logits_in(self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


class Named(nn.Module):
    """Arguments with defaults, and one by keyword alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, scale=None, mask=None, *, labels=None):
        return self.layer(x)

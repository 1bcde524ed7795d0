"""Image classification with everything together: metered, paused, distilled, pruned and quantized.

python examples/cifar10.py --random                         # random images, to see that it runs
python examples/cifar10.py --data FOLDER                    # CIFAR-10 by torchvision, which downloads it into FOLDER
python examples/cifar10.py --data cifar10.npz               # or arrays x_train, y_train, x_test, y_test: uint8 NHWC
lightning-green run -- python examples/cifar10.py --data FOLDER --deadline 36h
lightning-green report RUN_DIR                              # the page about it; the last lines name the directory

pip install 'lightning-green[compression]'
"""

import argparse
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_green import (
    CarbonScheduler,
    EmissionsTracker,
    GreenMixedPrecision,
    KnowledgeDistillation,
    Pruning,
    QuantizationAwareTraining,
)
from lightning_green.compression import export

MEAN, STD = torch.tensor([0.491, 0.482, 0.447]).view(3, 1, 1), torch.tensor([0.247, 0.243, 0.262]).view(3, 1, 1)


class Images(Dataset):
    """Images of 32 x 32 in memory; in training mirrored and shifted by up to four pixels, at random."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, augment: bool) -> None:
        self.images, self.labels, self.augment = torch.from_numpy(images).permute(0, 3, 1, 2), labels, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index].float() / 255
        if self.augment:
            image = nn.functional.pad(image, (4, 4, 4, 4))
            top, left = torch.randint(0, 9, (2,)).tolist()
            image = image[:, top : top + 32, left : left + 32]
            image = image.flip(-1) if torch.rand(()) < 0.5 else image
        return (image - MEAN) / STD, int(self.labels[index])


def load(path: Path | None) -> tuple[np.ndarray, ...]:
    """Return training images, labels, test images and labels."""
    if path is None:
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 10, 320)
        images = generator.integers(0, 256, (320, 32, 32, 3), np.uint8) // 2 + 12 * labels[:, None, None, None]
        return images[:256].astype(np.uint8), labels[:256], images[256:].astype(np.uint8), labels[256:]
    if path.is_file():
        arrays = np.load(path)
        return tuple(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    from torchvision.datasets import CIFAR10

    parts = [CIFAR10(path, train=is_train, download=True) for is_train in (True, False)]
    return parts[0].data, np.array(parts[0].targets), parts[1].data, np.array(parts[1].targets)


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def network(width: int) -> nn.Sequential:
    """Return a small convolutional network for 32 x 32 images; ``width`` channels after the first layer."""
    widths = [width, 2 * width, 2 * width, 4 * width, 4 * width]
    layers = [block(i, o, 1 if i == o or i == 3 else 2) for i, o in zip([3, *widths], widths, strict=False)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


class Classifier(pl.LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = network(width)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self.net(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit(module: Classifier, train: DataLoader, test: DataLoader, epochs: int, callbacks: list) -> float:
    trainer = pl.Trainer(max_epochs=epochs, callbacks=callbacks, plugins=[GreenMixedPrecision("auto")], logger=False)
    trainer.fit(module, train, test)
    return float(trainer.callback_metrics["val_accuracy"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder for torchvision, or an .npz file")
    source.add_argument("--random", action="store_true", help="random images instead of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--width", type=int, default=32, help="channels of the teacher; the student has half")
    parser.add_argument("--grid", default="typical:DE")
    parser.add_argument("--deadline", default=None, help="such as 36h; without one the run does not wait")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()

    pl.seed_everything(0)
    x_train, y_train, x_test, y_test = load(arguments.data)
    train = DataLoader(Images(x_train, y_train, True), 128, shuffle=True, num_workers=arguments.workers)
    test = DataLoader(Images(x_test, y_test, False), 256, num_workers=arguments.workers)

    # The teacher is trained in the same run: its energy is on the same bill.
    green = {"grid": arguments.grid}
    teacher = Classifier(arguments.width)
    callbacks = [EmissionsTracker(**green), CarbonScheduler(deadline=arguments.deadline)]
    teacher_accuracy = fit(teacher, train, test, arguments.epochs, callbacks)

    student = Classifier(arguments.width // 2)
    rounding = QuantizationAwareTraining(begin=0.7, freeze=0.95)
    callbacks = [
        EmissionsTracker(**green),
        CarbonScheduler(deadline=arguments.deadline),
        KnowledgeDistillation(teacher.net, model="net"),  # the student also learns the teacher's outputs
        Pruning(0.5, "channels", end=0.4, model="net", round_to=4),  # half of the parameters, as whole channels
        rounding,  # trains with int8 rounding, so that the conversion below loses nothing
    ]
    accuracy = fit(student, train, test, arguments.epochs, callbacks)
    counts = [sum(p.numel() for p in one.parameters()) for one in (teacher, student)]
    print(f"teacher: accuracy {teacher_accuracy:.3f}, {counts[0]:,} parameters")
    print(f"student: accuracy {accuracy:.3f}, {counts[1]:,} parameters, in int8")
    sample = next(iter(test))[0]
    export(rounding.convert(student), "student_int8.onnx", [sample])
    print("wrote student_int8.onnx")

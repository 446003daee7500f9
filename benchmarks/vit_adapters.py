"""A small ViT trained on five classes of CIFAR-10, fine-tuned to the other five in several ways.

The ViT (4 layers, width 128, patches of 8 by 8) is trained from scratch on airplane, automobile,
bird, cat and deer (5 x 1,000 images with flips and crops) and kept in out/benchmarks. Then the
methods of `sst2_adapters.py` fine-tune it to dog, frog, horse, ship and truck under the same rules:
3,000 training images, 1,000 to choose among four learning rates, 1,000 test images that are read
once for each of three seeds. ``--json FILE`` writes the numbers, ``--quick`` tries it out.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from _adapter_task import Task
from _adapters import claim, digest_of, main, write_aside
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.convert.training import train
from mercer.datasets import find

FIRST, SECOND = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
CONFIG: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
PRETRAINING = {"epochs": 40, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.05}


def images(split: str, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Read the images of some classes, (n, 3, 32, 32) of order one, and which class each is of."""
    import numpy as np
    import pyarrow.parquet
    from PIL import Image

    table = pyarrow.parquet.read_table(find("cifar10") / f"{split}.parquet").to_pydict()
    rows = [
        (np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")), classes.index(label))
        for image, label in zip(table["image"], table["label"], strict=True)
        if label in classes
    ]
    pixels = torch.from_numpy(np.stack([row for row, _ in rows]))  # (n, 32, 32, 3)
    labels = torch.tensor([label for _, label in rows])  # (n,)
    return (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25, labels


class ViTClassifier(nn.Module):
    """A linear head on the first token of a ViT."""

    def __init__(self, classes: int, seed: int) -> None:
        from transformers import ViTConfig, ViTModel

        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = ViTModel(ViTConfig(**CONFIG), add_pooling_layer=False)
            self.classifier = nn.Linear(CONFIG["hidden_size"], classes)
            nn.init.normal_(self.classifier.weight, std=0.02)
            nn.init.zeros_(self.classifier.bias)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """Map images (n, 3, 32, 32) to (n, width)."""
        return self.body(pixel_values=pixel_values).last_hidden_state[:, 0]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the scores, (n, classes)."""
        return self.classifier(self.embed(pixel_values))


def flip_and_crop(x: Tensor) -> Tensor:
    """Mirror half of the images and shift each by up to four pixels, by torch's random state."""
    flipped = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
    padded = F.pad(flipped, (4, 4, 4, 4))  # (n, 3, 40, 40)
    start = torch.randint(9, (2, len(x), 1))
    rows, columns = start + torch.arange(32)  # (n, 32) each
    n, c = torch.arange(len(x)).view(-1, 1, 1, 1), torch.arange(3).view(1, -1, 1, 1)
    return padded[n, c, rows.view(-1, 1, 32, 1), columns.view(-1, 1, 1, 32)]


def pretrained(folder: Path, epochs: int) -> dict[str, Tensor]:
    """Train the body on the first five classes, or read what an earlier call kept."""
    from safetensors.torch import load_file, save_file

    plan = {**PRETRAINING, "epochs": epochs, "config": CONFIG, "classes": FIRST}
    path = folder / f"vit-{digest_of([plan])}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with claim(path.with_suffix(".lock"), wait=True):
        if path.exists():
            return load_file(path)
        x, y = images("train", FIRST)
        model, size = ViTClassifier(len(FIRST), seed=0), int(plan["batch_size"])
        steps = len(x) // size

        def loss(step: int) -> Tensor:
            epoch, turn = divmod(step, steps)
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
            index = order[turn * size : (turn + 1) * size]
            return F.cross_entropy(model(flip_and_crop(x[index])), y[index], label_smoothing=0.1)

        done = train(
            model,
            loss,
            steps * epochs,
            learning_rate=plan["learning_rate"],
            weight_decay=plan["weight_decay"],
            checkpoint=path.with_suffix(".training"),
            every=10 * steps,
        )
        test_x, test_y = images("test", FIRST)
        with torch.no_grad():
            scores = torch.cat([model.eval()(part) for part in test_x.split(250)])
        accuracy = 100 * (scores.argmax(-1) == test_y).double().mean().item()
        print(f"the ViT reaches {accuracy:.1f} % on its own five classes", flush=True)
        note = {"accuracy": accuracy, "seconds": done.seconds, "plan": plan}
        write_aside(path.with_suffix(".json"), lambda file: file.write_text(json.dumps(note)))
        state = {k: v.contiguous() for k, v in model.body.state_dict().items()}
        write_aside(path, lambda file: save_file(state, file))
        return load_file(path)


class Images(Task):
    """The other five classes."""

    name = "vit_adapters"
    # At the table's rates most methods were best at the largest of their four.
    rate_factor = 2.0

    def __init__(
        self, out: Path, most: int | None = None, epochs: int = 4, pretraining: int = 40
    ) -> None:
        self.epochs = epochs
        self._data: dict[str, tuple[Tensor, Tensor]] = {"test": images("test", SECOND)}
        x, y = images("train", SECOND)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        for split, part in (("train", order[:3000]), ("dev", order[3000:4000])):
            self._data[split] = (x[part], y[part])
        if most is not None:
            self._data = {split: (x[:most], y[:most]) for split, (x, y) in self._data.items()}
        self._plan = {**PRETRAINING, "epochs": pretraining, "config": CONFIG, "most": most}
        self._state = pretrained(out / self.name, pretraining)

    def spec(self) -> dict[str, object]:
        """Plain values that tell model and data from others; the weights count by themselves."""
        return {"data": digest_of([SECOND, 3000, 1000]), **self._plan}

    def model(self, seed: int) -> nn.Module:
        """Return the trained ViT with a fresh head."""
        model = ViTClassifier(len(SECOND), seed)
        model.body.load_state_dict(self._state)
        return model

    def labels(self, split: str) -> Tensor:
        """Labels, (n,)."""
        return self._data[split][1]

    def lengths(self, split: str) -> list[int]:
        """Return the same for every image."""
        return [1] * len(self.labels(split))

    def inputs(self, split: str, index: Tensor) -> dict[str, Tensor]:
        """Return a batch of images."""
        return {"pixel_values": self._data[split][0][index]}


if __name__ == "__main__":
    main(
        Images,
        lambda out: Images(out, most=64, epochs=1, pretraining=1),
        __doc__.splitlines()[0],
    )

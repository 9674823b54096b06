"""Train any network on the stream of a shard set: `python examples/own_training_loop.py SHARDS CANVAS [EPOCHS]`."""

import argparse

import numpy as np
import timm
import torch

import hms_dist


def main(shards_folder: str, canvas: str, epochs: int, plugins: list[str]) -> None:
    """Train on all folds but the first of two, and print the mean loss of each epoch, in nats."""
    hms_dist.load_plugins(*plugins)
    shards = hms_dist.open_shards(shards_folder)
    rows = np.flatnonzero(shards.index["fold_of_2"] != 0)
    model = timm.create_model("test_efficientnet", in_chans=1, num_classes=shards.targets.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        losses = []
        for images, targets, _ in shards.stream(canvas, batch_size=8, rows=rows, epoch=epoch, flip_probability=0.5):
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {np.mean(losses):.4f} over {len(losses)} steps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards_folder", metavar="shards")
    parser.add_argument("canvas")
    parser.add_argument("epochs", nargs="?", type=int, default=2)
    parser.add_argument("--plugins", action="append", default=[], metavar="MODULE", help="a module with your panels")
    try:
        main(**vars(parser.parse_args()))
    except hms_dist.UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

"""Write a golden case of MyNetwork: a checkpoint of the original code, and what that code makes of some images.

python my_network_golden.py        writes goldens/my_network_small beside this file, then runs the ports on it
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from parity import goldens

HERE = Path(__file__).resolve().parent


class Original(nn.Module):
    """The network as its authors wrote it, with their names: replace it by an import of their code."""

    def __init__(self, width: int, hidden: int, depth: int, patch: int, classes: int):
        super().__init__()
        self.embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width, 1e-6), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in range(depth)
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed["proj"](images).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = x + layer(x)
        return self.classifier(x.mean(1))


def build() -> tuple[nn.Module, torch.Tensor]:
    """Build a small model with random weights, and images for it: the same ones in each call."""
    torch.manual_seed(0)
    model = Original(width=10, hidden=7, depth=2, patch=4, classes=3).eval()
    with torch.no_grad():
        for array in model.state_dict().values():  # also statistics: a fault could hide behind zeros and ones
            if array.is_floating_point():
                array.add_(0.1 * torch.randn_like(array))
    return model, torch.randn(2, 3, 12, 12).double()


def main() -> int:
    model, images = build()
    case = HERE / "goldens" / "my_network_small"
    case.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), case / "weights.pth")
    with torch.no_grad():
        logits = model.double()(images)
    page = str(HERE / "my_network.py")
    goldens.write(
        case,
        checkpoint="weights.pth",
        architecture="my_network",
        images=images.numpy(),
        logits=logits.numpy(),
        settings={"image": 12},  # Config fields that the checkpoint leaves open
        param_count=sum(p.numel() for p in model.parameters()),
        upstream={"repo": "owner/name", "commit": "the commit that was run"},
        page=page,
    )
    return goldens.check(case, page)


if __name__ == "__main__":
    sys.exit(goldens.run(main))

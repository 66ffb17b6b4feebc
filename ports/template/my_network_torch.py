"""MyNetwork in PyTorch. Images are (b c h w), tokens (b t c)."""

from typing import Any

from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}  # modules, which ports.save reads


class Block(nn.Module):
    def __init__(self, c: Any):
        super().__init__()
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.fc1 = nn.Linear(c.width, c.hidden)
        self.fc2 = nn.Linear(c.hidden, c.width)
        self.act = ACTIVATIONS[c.act]()

    def forward(self, x: Tensor) -> Tensor:  # (b t c) -> (b t c)
        return x + self.fc2(self.act(self.fc1(self.norm(x))))


class MyNetwork(nn.Module):
    """images (b c h w) -> logits (b classes), or pooled features (b width) with 0 classes."""

    def __init__(self, c: Any):
        super().__init__()
        self.stem = nn.Conv2d(c.channels, c.width, c.patch, c.patch)
        self.blocks = nn.Sequential(*(Block(c) for _ in range(c.depth)))
        self.head = nn.Linear(c.width, c.classes) if c.classes else None

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).mT  # (b c h w) -> (b (h w) c)
        x = self.blocks(x).mean(1)
        return x if self.head is None else self.head(x)

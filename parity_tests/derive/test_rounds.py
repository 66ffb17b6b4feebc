"""The line of progress of a derivation: its numbers do not fall."""

import re
from types import SimpleNamespace

import numpy as np
import torch

from parity.derive import derive
from parity.derive.match.choices import Choices

LINE = re.compile(r"matching, round (\d+): operation (\d+) of (\d+) reached, choice (\d+) of partners")


class Net(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.up, self.norm, self.head = torch.nn.Linear(6, 6), norm(6), torch.nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x + torch.relu(self.up(self.norm(x))))


def test_each_match_is_a_round_of_its_own():
    said = list[str]()
    found = derive(Net(torch.nn.LayerNorm), Net(torch.nn.RMSNorm), np.ones((2, 6), np.float32), say=said.append)
    lines = [tuple(map(int, LINE.fullmatch(line).groups())) for line in said if line.startswith("matching")]
    assert not found.proven and lines == sorted(lines, key=lambda line: (line[0], line[1]))
    assert {number for number, *_ in lines} >= {1, 2}


def test_an_attempt_that_steps_back_reports_its_furthest_operation():
    said = list[str]()
    attempt = SimpleNamespace(
        walk=SimpleNamespace(at=0), program=SimpleNamespace(tape=SimpleNamespace(nodes=[0] * 9)), steps=[], _entries=[],
        _begun=(-1, 0, 0), _say=said.append, _attempt=1, _reached=0,
    )  # fmt: skip
    for at, choice in ((2, 1), (7, 1), (3, 2), (8, 2)):
        attempt.walk.at, attempt._attempt = at, choice
        Choices._begin(attempt)
    reached = [int(re.search(r"operation (\d+) of 9 reached", line)[1]) for line in said]
    assert reached == [2, 7, 7, 8] and said[2].endswith(", choice 2 of partners")

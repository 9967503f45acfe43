"""Where nothing can be compiled, one line says so before the first step."""

from __future__ import annotations

import pytest
import torch
import torch._inductor.config
from torch import nn

from backbones import UserError
from detection.engine.compiled import compile_network


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    reason = r"SOLVER.COMPILE is True, .* on 'cpu' here \(No working C\+\+ compiler .*\); it needs"
    with pytest.raises(UserError, match=reason) as raised:
        compile_network(nn.Linear(2, 2))
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("set SOLVER.COMPILE to False")


def test_with_a_pytorch_that_cannot_evaluate_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.raises(UserError, match=r"needs PyTorch 2.6 or later, and this is \d"):
        compile_network(nn.Linear(2, 2))

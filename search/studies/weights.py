"""Weights tried: every network of the zoo, in the forms in which people have its weights."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from backbones.conversion import convert_weights
from backbones.errors import UserError
from backbones.extras import require
from backbones.factory import create_model, list_models, load_architecture
from backbones.weights import StateDict
from detection.engine.provenance import provenance
from search.studies.markdown import beside, table

TOLERANCE = 1e-5
"""Of a logit, in parts of the largest."""

_SIDE = 64
_FBNET_B = [
    "ds_r1_k3_s1_c16",
    "ir_r1_k3_s2_e6_c24 ds_r1_k5_s1_c24 ds_r2_k3_s1_c24",
    "ir_r1_k5_s2_e6_c32 ir_r1_k5_s1_e3_c32 ir_r1_k3_s1_e6_c32 ir_r1_k5_s1_e6_c32",
    "ir_r2_k5_s2_e6_c64 ir_r1_k5_s1_e3_c64",
    "ir_r1_k5_s1_e6_c112 ds_r1_k3_s1_c112 ds_r1_k5_s1_c112 ir_r1_k5_s1_e3_c112",
    "ir_r1_k5_s2_e6_c184 ds_r1_k5_s1_c184 ir_r2_k5_s1_e6_c184",
    "ir_r1_k3_s1_e6_c352",
]
"""In timm's words, from the authors' list; timm has no such network of its own."""

Writer = Callable[[StateDict, Path, str], Path | str]
"""Writes a network's tensors, by the reference's names, below a folder; returns what to name."""


def _timm(name: str) -> nn.Module:
    return timm.create_model(name)


def _fbnet_b() -> nn.Module:
    blocks = decode_arch_def([stage.split() for stage in _FBNET_B])
    return EfficientNet(blocks, stem_size=16, num_features=1984)


def _pytorchcv(name: str) -> nn.Module:
    require("pytorchcv")
    model: Any = import_module("pytorchcv.model_provider").get_model(name)
    model.features.final_pool = nn.AdaptiveAvgPool2d(1)  # its own is of 7×7 only
    return model


def _torchvision(name: str) -> nn.Module:
    return torchvision.models.get_model(name)


REFERENCES: dict[str, Callable[[], nn.Module]] = {
    "spnas_100": partial(_timm, "spnasnet_100"),
    "mobilenetv2_100": partial(_timm, "mobilenetv2_100"),
    "mobilenetv3_large_100": partial(_timm, "mobilenetv3_large_100"),
    "mnasnet_b1": partial(_timm, "mnasnet_100"),
    "mnasnet_a1": partial(_timm, "semnasnet_100"),
    "proxylessnas_mobile": partial(_pytorchcv, "proxylessnas_mobile"),
    "fbnet_b": _fbnet_b,
    "fbnet_c": partial(_timm, "fbnetc_100"),
    "efficientnet_lite0": partial(_timm, "tf_efficientnet_lite0"),
    "efficientnet_lite1": partial(_timm, "tf_efficientnet_lite1"),
    "efficientnet_lite2": partial(_timm, "tf_efficientnet_lite2"),
}
"""Every network of the zoo, by another library."""

ELSEWHERE: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "torchvision's names": {
        "mobilenetv2_100": partial(_torchvision, "mobilenet_v2"),
        "mobilenetv3_large_100": partial(_torchvision, "mobilenet_v3_large"),
        "mnasnet_b1": partial(_torchvision, "mnasnet1_0"),
    },
    "pytorchcv's names": {
        "spnas_100": partial(_pytorchcv, "spnasnet"),
        "proxylessnas_mobile": partial(_pytorchcv, "proxylessnas_mobile"),
    },
}
"""Other libraries that have the same network, with sorted tensors."""


def _saved(content: Any, folder: Path, suffix: str = "pth") -> Path:
    path = folder / f"weights.{suffix}"
    torch.save(content, path)
    return path


def _prefixed(state: StateDict, prefix: str) -> StateDict:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _noise(state: Mapping[str, Tensor]) -> StateDict:
    """Tensors like these, which give other logits."""
    return {
        name: value + torch.rand_like(value) if value.is_floating_point() else value
        for name, value in state.items()
    }


def _plain(state: StateDict, folder: Path, network: str) -> Path:
    return _saved(state, folder)


def _own(state: StateDict, folder: Path, network: str) -> Path:
    ours = convert_weights(load_architecture(network), state)
    return _saved({"model": ours, "matching_heuristics": True}, folder)


def _sorted(state: StateDict, folder: Path, network: str) -> Path:
    return _saved(dict(sorted(state.items())), folder)


def _shuffled(state: StateDict, folder: Path, network: str) -> Path:
    names = list(state)
    random.Random(0).shuffle(names)
    return _saved({name: state[name] for name in names}, folder)


def _safetensors(state: StateDict, folder: Path, network: str) -> Path:
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def _under(prefix: str) -> Writer:
    return lambda state, folder, network: _saved(_prefixed(state, prefix), folder)


def _net(state: StateDict, folder: Path, network: str) -> Path:
    return _saved({"net": state, "acc": torch.tensor(71.3), "epoch": 3}, folder)


def _timm_trainer(state: StateDict, folder: Path, network: str) -> Path:
    content = {
        "epoch": 3,
        "arch": network,
        "state_dict": _noise(state),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{}]},
        "version": 2,
        "args": argparse.Namespace(model=network, output=Path("output"), lr=0.1),
        "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": state,
        "metric": np.float64(71.3),
    }
    return _saved(content, folder)


def _lightning(state: StateDict, folder: Path, network: str) -> Path:
    content = {
        "epoch": 3,
        "global_step": 30,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**_prefixed(state, "model."), "criterion.weight": torch.ones(1000)},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{}]}],
        "lr_schedulers": [{"last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"cfg": OmegaConf.create({"lr": 0.1, "sizes": [3, 5]})},
    }
    return _saved(content, folder, "ckpt")


def _detectron2(state: StateDict, folder: Path, network: str) -> Path:
    ours = convert_weights(load_architecture(network), state)
    content = {
        "model": {
            **_prefixed(ours, "module.backbone.bottom_up."),
            "module.proposal_generator.rpn_head.conv.weight": torch.ones(4, 4, 3, 3),
        },
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{}]},
        "scheduler": {"base_lrs": [np.float64(0.02)], "last_epoch": 9},
        "iteration": 9,
    }
    return _saved(content, folder)


def _averaged_module(state: StateDict, folder: Path, network: str) -> Path:
    averaged = {"module": _prefixed(state, "module."), "updates": 30, "decay": 0.9999}
    return _saved({"model": _noise(state), "ema": averaged}, folder)


def _averaged_parameters(state: StateDict, folder: Path, network: str) -> Path:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    averaged = {name: value for name, value in state.items() if not name.endswith(statistics)}
    others = {name: value for name, value in state.items() if name.endswith(statistics)}
    content = {"model_state_dict": {**_noise(averaged), **others}, "model_ema": averaged}
    return _saved(content, folder)


def _swa(state: StateDict, folder: Path, network: str) -> Path:
    averaged = {"n_averaged": torch.tensor(9), **_prefixed(state, "module.")}
    return _saved({"state_dict": averaged}, folder)


def _local_dir(state: StateDict, folder: Path, network: str) -> str:
    _safetensors(state, folder, network)
    config = {"architecture": network, "num_classes": 1000, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"local-dir:{folder}"


FORMS: dict[str, Writer] = {
    "a state dict": _plain,
    "this project's names": _own,
    "sorted tensors": _sorted,
    "tensors in any order": _shuffled,
    "safetensors": _safetensors,
    "prefix `module.`": _under("module."),
    "prefix `_orig_mod.`": _under("_orig_mod."),
    "prefix `module._orig_mod.model.encoder.`": _under("module._orig_mod.model.encoder."),
    "under `net`": _net,
    "timm's trainer, with EMA": _timm_trainer,
    "Lightning's trainer": _lightning,
    "Detectron2's trainer": _detectron2,
    "EMA under `ema`, `module`": _averaged_module,
    "EMA of parameters alone": _averaged_parameters,
    "`AveragedModel` of PyTorch": _swa,
    "half precision": _plain,
    "bfloat16, in safetensors": _safetensors,
    "`local-dir:`": _local_dir,
}
"""What is written, by what it is called in the table."""

_PRECISIONS = {"half precision": torch.float16, "bfloat16, in safetensors": torch.bfloat16}


def reference_of(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network in eval mode with weights and statistics that none can take for others.

    Args:
        build: makes it.
        seed: of its weights.
    """
    torch.manual_seed(seed)
    model = build().eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1:
            value.uniform_(-0.5, 0.5)
    return model


def difference(network: str, model: nn.Module, write: Writer, folder: Path) -> float:
    """How far the zoo's network is from ``model`` once it has its weights.

    Args:
        network: of the zoo.
        model: the same network of another library.
        write: what makes the file to load.
        folder: an empty one.

    Returns:
        The largest difference of any logit, in parts of the largest logit.

    Raises:
        UserError: if the file is refused.
    """
    source = write(dict(model.state_dict()), folder, network)
    ours = create_model(network, checkpoint_path=source).eval()
    image = torch.randn(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(image)
        return float((ours(image) - expected).abs().max() / expected.abs().max())


def forms_of(network: str) -> Iterator[tuple[str, float]]:
    """Every form of a network's weights, and its :func:`difference`."""
    model = reference_of(REFERENCES[network])
    for form, write in FORMS.items():
        if form in _PRECISIONS:
            rounded = reference_of(REFERENCES[network])
            state = {n: _rounded(v, _PRECISIONS[form]) for n, v in model.state_dict().items()}
            rounded.load_state_dict(state)
            yield form, _tried(network, rounded, _in_type(write, _PRECISIONS[form]))
        else:
            yield form, _tried(network, model, write)
    for library, networks in ELSEWHERE.items():
        if network in networks:
            yield library, _tried(network, reference_of(networks[network]), _sorted)


def _tried(network: str, model: nn.Module, write: Writer) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return difference(network, model, write, Path(folder))


def _rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _in_type(write: Writer, dtype: torch.dtype) -> Writer:
    def in_type(state: StateDict, folder: Path, network: str) -> Path | str:
        return write({n: _rounded(v, dtype) for n, v in state.items()}, folder, network)

    return in_type


def weights_report() -> dict[str, Any]:
    """Every network and form, and how far its logits are from the reference's.

    Raises:
        UserError: if one is refused, or further away than :data:`TOLERANCE`.
    """
    origin = provenance()  # of the code that is loaded, not of what is committed meanwhile
    differences = {network: dict(forms_of(network)) for network in list_models()}
    wrong = [
        f"{network}, {form}: {value:.1e}"
        for network, forms in differences.items()
        for form, value in forms.items()
        if not value <= TOLERANCE
    ]
    if wrong:
        raise UserError(f"logits differ by more than {TOLERANCE:g}: {'; '.join(wrong)}")
    return {**origin, "tolerance": TOLERANCE, "differences": differences}


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}" if value else "0"


def weights_section(report: Mapping[str, Any]) -> str:
    """The largest difference by form and network."""
    differences = report["differences"]
    rows = [
        [form, *(_cell(forms.get(form)) for forms in differences.values())]
        for form in (*FORMS, *ELSEWHERE)
    ]
    said = (
        "Largest difference of a logit from the reference's, in parts of the largest logit; at "
        f"most {report['tolerance']:g} passes."
    )
    return f"{table(['form', *differences], rows)}\n\n{said} {beside(report)}"

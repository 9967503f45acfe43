"""A detector of Detectron2 for others: weights, configuration, backbone and model card."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, SHARED_FILE
from backbones.hub import hub_name
from backbones.sharing.card import CARD_FILE, model_card
from backbones.sharing.facts import Facts
from backbones.sharing.folder import check_folder, write_files
from backbones.states import model_state
from backbones.trained import named_architecture
from backbones.weights import CLASSES, read_checkpoint, save_safetensors
from detection.checkpointing import DetectorCheckpointer
from detection.config import add_spnas_config
from detection.engine.config_file import load_config
from detection.sharing.run import CONFIG_YAML, Run, shared_config
from detection.trainer import DetectionTrainer

_USAGE = """\
The folder has what Detectron2 needs: `config.yaml` and `model.safetensors`. With spnas:

```python
from detection.sharing.detector import load_detector

model, cfg = load_detector("USER/NAME")  # or the path of a folder
outputs = model([{"image": image}])  # (3, H, W), 0 to 255, channels as INPUT.FORMAT says
```

To evaluate it on a data set, or to go on from it, give `MODEL.WEIGHTS FOLDER/model.safetensors`
and, where there is one, `MODEL.SPNAS.ARCH FOLDER/architecture.json` to
`spnas train --config-file FOLDER/config.yaml`.
"""


def save_detector(
    folder: str | Path, run: Run, weights: Path, facts: Facts, *, replace: bool = False
) -> Path:
    """Writes ``model.safetensors``, ``config.yaml``, ``architecture.json`` and a model card.

    Args:
        folder: to write into.
        run: of the detector.
        weights: its checkpoint.
        facts: for the model card.
        replace: whether files of an earlier model in the folder may be replaced.

    Returns:
        The folder.

    Raises:
        UserError: if there are no such weights, they do not fit the run's configuration, or the
            folder holds another model.
    """
    check_folder(folder, replace)
    content = read_checkpoint(weights)
    state = model_state(content, str(weights))
    classes = content.get(CLASSES)
    backbone = _backbone(run)
    changes = {"MODEL__WEIGHTS": SHARED_FILE, "MODEL__DEVICE": "cpu"}
    if backbone is not None:
        changes["MODEL__SPNAS__ARCH"] = ARCHITECTURE_FILE
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch)
        save_safetensors(
            prepared / SHARED_FILE, state, classes if isinstance(classes, list) else ()
        )
        if backbone is not None:
            backbone.save(prepared / ARCHITECTURE_FILE)
        (prepared / CONFIG_YAML).write_text(shared_config(run, **changes), encoding="utf-8")
        load_detector(prepared)  # refuses what would not load elsewhere
        shown = None
        if backbone is not None:
            shown = backbone.scaled(run.config["MODEL"]["SPNAS"].get("WIDTH_MULT", 1.0))
        return write_files(folder, prepared, {CARD_FILE: model_card(facts, _USAGE, shown)})


def load_detector(name: str | Path, opts: Sequence[str] = ()) -> tuple[nn.Module, CfgNode]:
    """A shared detector with its weights, in eval mode, and its configuration.

    Args:
        name: the folder, or ``USER/NAME`` of a repository of Hugging Face's hub.
        opts: keys and values to change, e.g. ``("MODEL.DEVICE", "cuda")``.

    Raises:
        UserError: if there is no such detector, or its weights do not fit.
    """
    folder = _local(str(name))
    config = folder / CONFIG_YAML
    if not config.is_file() or not (folder / SHARED_FILE).is_file():
        raise UserError(
            f"'{name}' holds no detector: expected {CONFIG_YAML} and {SHARED_FILE}; a classifier "
            "or a backbone is loaded by backbones.from_pretrained"
        )
    own = ["MODEL.WEIGHTS", str(folder / SHARED_FILE)]
    if (folder / ARCHITECTURE_FILE).is_file():
        own += ["MODEL.SPNAS.ARCH", str(folder / ARCHITECTURE_FILE)]
    arguments = argparse.Namespace(config_file=str(config), opts=[*own, *opts])
    cfg = load_config(arguments, add_spnas_config)
    with torch.random.fork_rng():
        model = DetectionTrainer.build_model(cfg)
    DetectorCheckpointer(model, strict=True).load(cfg.MODEL.WEIGHTS)
    return model.eval(), cfg


def _backbone(run: Run) -> Architecture | None:
    """Of a detector; None if its backbone is not one of this project."""
    model = run.config.get("MODEL", {})
    if "spnas" not in str(model.get("BACKBONE", {}).get("NAME", "")):
        return None
    return named_architecture(str(model["SPNAS"]["ARCH"]))


def _local(name: str) -> Path:
    """The folder of a shared model, downloaded where it is on the hub."""
    scheme, _, rest = hub_name(name).partition(":")
    if scheme == "local-dir":
        return Path(rest)
    repository, _, revision = rest.partition("@")
    try:
        found = import_module("huggingface_hub").snapshot_download(
            repository, revision=revision or None
        )
    except Exception as error:  # its HTTP library raises types of its own
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"cannot fetch '{name}' from Hugging Face's hub ({type(error).__name__}: {reason}); "
            "check the name and the network, or download its folder elsewhere and name its path"
        ) from None
    return Path(found)

"""The folder of a shared model, which timm's loaders and this project's read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import save_for_hf
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.conversion import convert_back
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, SHARED_FILE
from backbones.files import atomic_path
from backbones.hub import CONFIG_FILE
from backbones.sharing.card import CARD_FILE, model_card
from backbones.sharing.facts import Facts
from backbones.timm_models import SEARCHED, pretrained_config
from backbones.weights import load_weights
from backbones.zoo import timm_equivalent

FILES = (SHARED_FILE, CONFIG_FILE, ARCHITECTURE_FILE, CARD_FILE, "config.yaml")
"""What the folder of a shared model may hold."""

_USAGE = """\
{introduction}

```python
import timm
{imports}
{classifier}features = timm.create_model("hf-hub:USER/NAME", pretrained=True, features_only=True)
```

{otherwise}: `backbones.from_pretrained("USER/NAME"{options})`. A folder takes the place of the
repository: `local-dir:/path/to/folder` in timm, its path in spnas.
"""

_BY_TIMM = ("Plain timm knows this network:", "", "With spnas")
_BY_IMPORT = (
    "With [timm](https://github.com/huggingface/pytorch-image-models), after one import of spnas:",
    "import backbones.timm_models  # puts the networks of spnas into the registry\n",
    "Without timm",
)

_CLASSIFIER = 'model = timm.create_model("hf-hub:USER/NAME", pretrained=True)\n'


def save_pretrained(
    folder: str | Path,
    architecture: Architecture,
    state: Mapping[str, Tensor],
    facts: Facts | None = None,
    labels: Sequence[str] = (),
    *,
    replace: bool = False,
    preprocessing: Mapping[str, Any] | None = None,
    further: Mapping[str, str] | None = None,
) -> Path:
    """Writes weights, ``architecture.json``, timm's ``config.json`` and a model card.

    A network that timm has is written by timm's names, so that timm alone loads it.

    Args:
        folder: to write into.
        architecture: of the network.
        state: its tensors, by the names of :class:`backbones.network.Classifier`; without
            ``head.conv.weight`` they are a backbone's alone.
        facts: for the model card; None states nothing but the name.
        labels: names of the classes, in their order; empty if they are not known.
        replace: whether files of an earlier model in the folder may be replaced.
        preprocessing: what is special about its images, by timm's keys: ``input_size`` (3, H, W),
            ``crop_pct``, ….
        further: text files to add, by name.

    Returns:
        The folder.

    Raises:
        UserError: if the weights are of another network, the labels are too few or too many, or the
            folder holds another model.
    """
    check_folder(folder, replace)
    weight = state.get("classifier.weight")
    classes = 0 if weight is None else len(weight)
    if labels and len(labels) != classes:
        raise UserError(f"{len(labels)} labels are given for a classifier of {classes} classes")
    facts = facts or Facts(architecture.name, "classifier" if classes else "backbone")
    model, arguments = _timm_model(architecture, state, classes)
    with tempfile.TemporaryDirectory() as scratch:
        save_for_hf(
            model,
            scratch,
            model_config={
                "pretrained_cfg": dict(preprocessing or {}),
                **({"label_names": list(labels)} if labels else {}),
            },
            model_args=arguments,
            safe_serialization=True,
        )
        architecture.save(Path(scratch, ARCHITECTURE_FILE))
        usage = _usage(is_timms=not arguments, classes=classes)
        texts = {CARD_FILE: model_card(facts, usage, architecture), **(further or {})}
        return write_files(folder, Path(scratch), texts)


def check_folder(folder: str | Path, replace: bool) -> None:
    """Insists that a folder holds no other model, unless that may be replaced.

    Raises:
        UserError: if it does.
    """
    held = [name for name in FILES if Path(folder, name).exists()]
    if held and not replace:
        raise UserError(
            f"'{folder}' holds a model already ({', '.join(held[:3])}); name another folder, or "
            "replace it: --replace (replace=True)"
        )


def write_files(folder: str | Path, prepared: Path, texts: Mapping[str, str]) -> Path:
    """Copies prepared files and texts into a folder, each whole or not at all.

    What an earlier model left there beside them is removed.
    """
    folder = Path(folder)
    names = {path.name for path in prepared.iterdir()} | set(texts)
    for path in sorted(prepared.iterdir()):
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for name in set(FILES) - names:
        (folder / name).unlink(missing_ok=True)
    return folder


def _timm_model(
    architecture: Architecture, state: Mapping[str, Tensor], classes: int
) -> tuple[nn.Module, dict[str, Any]]:
    """A model of timm's with the weights, and its arguments in JSON; timm's own needs none."""
    whole = "head.conv.weight" in state
    arguments: dict[str, Any] = {} if whole else {"num_features": 0}
    model: nn.Module = timm.create_model(
        SEARCHED, architecture=architecture, num_classes=classes, **arguments
    )
    load_weights(model, state, f"the weights of '{architecture.name}'")
    known = timm_equivalent(architecture) if whole else None
    if known is None:
        return model, {**arguments, "architecture": architecture.to_dict()}
    images = pretrained_config(architecture)
    images |= {"first_conv": "conv_stem", "classifier": "classifier"}
    theirs: nn.Module = timm.create_model(known.name, num_classes=classes, pretrained_cfg=images)
    own = model.state_dict()
    theirs.load_state_dict(convert_back(architecture, own, theirs.state_dict(), known.norm_eps))
    return theirs, {}


def _usage(is_timms: bool, classes: int) -> str:
    """How a model is loaded, for its card."""
    introduction, imports, otherwise = _BY_TIMM if is_timms else _BY_IMPORT
    return _USAGE.format(
        introduction=introduction,
        imports=imports,
        classifier=_CLASSIFIER if classes else "",
        otherwise=otherwise,
        options="" if classes else ", features_only=True",
    )

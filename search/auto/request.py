"""What ``spnas auto`` is asked for, and what of that can be wrong by itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from backbones.deployment.exporting import check_request
from backbones.deployment.formats import SUFFIXES, Format
from backbones.errors import UserError
from backbones.inference import make_engine
from search.auto.quantities import parse_duration, parse_runtime, spoken, target_name
from search.command_line.registry import tool_words

DETECTORS = ("mask_rcnn", "faster_rcnn", "retinanet")
"""What can be searched for and trained."""

_OWN_KEYS = {
    **dict.fromkeys(("DATA.ROOT", "DATASETS.TRAIN", "DATASETS.TEST"), "--data"),
    **dict.fromkeys(("SEARCH.TARGET", "SEARCH.FAMILY"), "--target and --targets"),
    **dict.fromkeys(("MODEL.SPNAS.ARCH", "MODEL.WEIGHTS", "SEARCH.START"), "--seed-network"),
    **dict.fromkeys(("SEARCH.LATENCY_TABLE", "MODEL.SPNAS.LATENCY_TABLE"), "--table"),
    **dict.fromkeys(("SEARCH.DEPLOY_SIZE", "INPUT.MIN_SIZE_TEST"), "--size"),
    **dict.fromkeys(("MODEL.MASK_ON", "MODEL.META_ARCHITECTURE"), "--detector"),
    "SOLVER.MAX_ITER": "SOLVER.EPOCHS, passes over the images for the start",
    "OUTPUT_DIR": "--output",
}
"""Keys that the stages set themselves, and what says it instead."""

_OF_SPACE = ("SEARCH.AROUND.", "SEARCH.SPACE")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        data: as ``DATA.ROOT``, or ``NAME`` of data sets that are registered as ``NAME_train`` and
            ``NAME_val``.
        data_val: the validation set, where ``data`` is the training set alone, both as an entry of
            ``DATASETS.TRAIN``; else empty.
        targets: runtimes in ms; the first one is the answer's.
        device: ``cpu`` or ``cuda``, of this machine.
        engine: of the device.
        table: name or path of a latency table; empty profiles the device.
        detector: one of :data:`DETECTORS`.
        seed_network: that the search starts from.
        budget: seconds for all of it; None takes the recipe's steps.
        size: shorter side of the images in pixels; None proposes one.
        formats: of the exported files.
        options: further keys and their values, in turns.
    """

    data: str
    targets: tuple[float, ...]
    device: str = "cpu"
    engine: str = "onnxruntime"
    table: str = ""
    detector: str = "mask_rcnn"
    seed_network: str = "efficientnet_lite0"
    budget: float | None = None
    size: int | None = None
    formats: tuple[Format, ...] = ("onnx",)
    options: tuple[str, ...] = ()
    data_val: str = ""

    @classmethod
    def of(cls, args: argparse.Namespace) -> Request:
        """From the command line.

        Raises:
            UserError: naming the argument that is wrong.
        """
        typed = [*([args.target] if args.target else []), *(args.targets or [])]
        targets = tuple(dict.fromkeys(parse_runtime(text) for text in typed))
        sets: list[str] = list(args.data or [])
        data, data_val = [*sets, "", ""][:2]
        if len(sets) > 2:
            raise UserError(
                f"--data is '{' '.join(sets)}'; expected a folder, or a training and a "
                "validation set"
            )
        request = cls(
            data=data,
            data_val=data_val,
            targets=targets,
            device=args.device,
            engine=args.engine,
            table=args.table or "",
            detector=args.detector,
            seed_network=args.seed_network,
            budget=parse_duration(args.budget) if args.budget else None,
            size=args.size,
            formats=tuple(dict.fromkeys(args.formats)),
            options=tuple(args.opts),
        )
        request.check()
        return request

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Request:
        """The inverse of :meth:`to_json`."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in content.items() if key in known}
        lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **lists})

    def to_json(self) -> dict[str, Any]:
        """As ``plan.json`` has it."""
        return asdict(self)

    def words(self, output: Path) -> list[str]:
        """The command that a user types for it."""
        plain = {
            "--device": (self.device, "cpu"),
            "--engine": (self.engine, "onnxruntime"),
            "--table": (self.table, ""),
            "--detector": (self.detector, "mask_rcnn"),
            "--seed-network": (self.seed_network, "efficientnet_lite0"),
        }
        words = [*tool_words("auto.py"), "--data", *filter(None, (self.data, self.data_val))]
        words += ["--targets", *map(target_name, self.targets)]
        words += [word for key, (v, usual) in plain.items() if v != usual for word in (key, v)]
        words += ["--budget", _typed(self.budget)] if self.budget is not None else []
        words += ["--size", str(self.size)] if self.size is not None else []
        words += ["--formats", *self.formats] if self.formats != ("onnx",) else []
        return [*words, "--output", str(output), *self.options]

    def check(self) -> None:
        """Insists on what can be known without the data and the device.

        Raises:
            UserError: naming the argument.
        """
        if not self.data:
            raise UserError("--data is missing; name the folder of your photos: --data photos")
        if not self.targets:
            raise UserError("--target is missing; name the runtime to search for: --target 15ms")
        _one_of("--detector", self.detector, DETECTORS)
        for name in self.formats:
            _one_of("--formats", name, [*SUFFIXES])
            check_request(Path(f"network{SUFFIXES[name]}"), name, "fp32")
        if self.device not in ("cpu", "cuda"):
            raise UserError(
                f"--device is '{self.device}'; expected cpu or cuda, of this machine; for another "
                "one give its latency table (--table), which spnas profile --prepare makes there"
            )
        if not self.table:
            make_engine(self.engine, self.device).check_conversion()
        if self.size is not None and (self.size < 64 or self.size % 32):
            raise UserError(f"--size is {self.size}; expected a multiple of 32, and 64 or more")
        self._check_options()

    def _check_options(self) -> None:
        if len(self.options) % 2:
            raise UserError(
                f"the configuration key '{self.options[-1]}' at the end of the command line has no "
                "value; expected KEY VALUE pairs, separated by spaces"
            )
        for key in self.options[::2]:
            if key in _OWN_KEYS:
                raise UserError(f"{key} is of a stage's own; say it by {_OWN_KEYS[key]}")
        if self.epochs is not None and self.budget is not None:
            raise UserError(
                "SOLVER.EPOCHS and --budget both say how long to train; leave one of them out"
            )

    @property
    def pairs(self) -> dict[str, str]:
        """The further keys; of one that is there twice the last value."""
        return dict(zip(self.options[::2], self.options[1::2], strict=True))

    @property
    def epochs(self) -> float | None:
        """``SOLVER.EPOCHS`` of the start, where it is asked for."""
        text = self.pairs.get("SOLVER.EPOCHS")
        try:
            epochs = None if text is None else float(text)
        except ValueError:
            epochs = 0.0
        if epochs is not None and not 0 < epochs < float("inf"):
            raise UserError(f"SOLVER.EPOCHS is '{text}'; expected a number of passes above 0")
        return epochs

    @property
    def search_options(self) -> tuple[str, ...]:
        """Further keys that only a search has."""
        own, space = "SEARCH.", _OF_SPACE
        found = {k: v for k, v in self.pairs.items() if k.startswith(own)}
        return _flat({k: v for k, v in found.items() if not k.startswith(space)})

    @property
    def space_options(self) -> tuple[str, ...]:
        """Further keys of the space that is searched, which its latency table is for."""
        return _flat({k: v for k, v in self.pairs.items() if k.startswith(_OF_SPACE)})

    @property
    def detector_options(self) -> tuple[str, ...]:
        """Further keys of every training."""
        own = ("SEARCH.", "SOLVER.EPOCHS")
        return _flat({k: v for k, v in self.pairs.items() if not k.startswith(own)})

    def differing(self, other: Request) -> list[str]:
        """What another request has otherwise, in words: ``--budget was 1h30m, not 2h``."""
        there, asked = self.to_json(), other.to_json()
        for content in (there, asked):
            if content["budget"] is not None:
                content["budget"] = spoken(content["budget"])
        names = {"targets": "--target", "options": "KEY VALUE", "seed_network": "--seed-network"}
        names["data_val"] = "the second --data"
        return [
            f"{names.get(key, f'--{key}')} was {_shown(there[key])}, not {_shown(asked[key])}"
            for key in asked
            if asked[key] != there[key]
        ]


def check_output(folder: Path) -> None:
    """Insists on a folder that can be made or written.

    Raises:
        UserError: naming what is in the way.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(
            f"--output is '{folder}', but '{place}' is a file; name another folder: --output "
            "output/other"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"--output is '{folder}', but you may not write to '{place}'; name a folder that you "
            "may write to: --output output/other"
        )


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} is '{value}'; expected one of {', '.join(known)}")


def _typed(seconds: float) -> str:
    """A budget as it can be typed, to the second."""
    text = spoken(seconds)
    return text if parse_duration(text) == seconds else f"{seconds:g}s"


def _flat(pairs: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word for pair in pairs.items() for word in pair)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or "none"
    return "none" if value in (None, "") else f"{value}"

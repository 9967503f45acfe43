"""Reading a configuration, with every mistake in it named."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import guess_version
from detectron2.utils import comm

from backbones.errors import UserError
from backbones.paths import config_names, config_path
from detection.engine.plain_yaml import load_with_bases, one_line

_NAME_LISTS = ("DATASETS.TRAIN", "DATASETS.TEST")
"""Keys whose lists may be written as one name alone."""

logger = logging.getLogger(__name__)


def load_config(args: argparse.Namespace, *extenders: Callable[[CfgNode], None]) -> CfgNode:
    """The frozen configuration of a run.

    Detectron2's defaults, extended, then the file ``args.config_file``, then the pairs
    ``args.opts``. ``MODEL.DEVICE`` becomes ``cpu`` where CUDA is asked for but not available, or
    where ``--num-gpus 0`` asks for the CPU.

    Args:
        args: what :func:`detection.engine.cli.argument_parser` parsed.
        extenders: functions that add keys, e.g. ``add_engine_config``.

    Raises:
        UserError: for a missing or malformed file, an unknown key, or a value of a wrong type.
    """
    cfg = get_cfg()
    for extend in extenders:
        extend(cfg)
    if args.config_file:
        merge_file(cfg, find_config_file(args.config_file))
    merge_options(cfg, args.opts or [])
    _choose_device(cfg, args)
    cfg.freeze()
    return cfg


def find_config_file(name: str) -> Path:
    """A configuration file by its path or by its name below the project's ``configs/``.

    A path of a checkout, such as ``configs/search/digits.yaml``, is such a name everywhere else.
    """
    path = Path(name).expanduser()
    below = name.removeprefix("configs/")
    for candidate in (path, config_path(name), config_path(below)):
        if candidate.is_file():
            return candidate
    near = difflib.get_close_matches(below, config_names(), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "; check the path"
    raise UserError(f"no configuration file '{name}', here or below '{config_path()}'{hint}")


def merge_file(cfg: CfgNode, path: Path) -> None:
    """Merges a YAML file with its ``_BASE_`` files into ``cfg``.

    As in Detectron2, but the files are data: a Python tag in one of them is refused, not run.

    Raises:
        UserError: naming the file and the key or line at fault.
    """
    where = f"the configuration '{path}'"
    values = _with_lists(load_with_bases(str(path)), where)
    # Detectron2 renames the keys of older versions itself.
    current = values.get("VERSION", cfg.VERSION) == cfg.VERSION
    for key, value in _leaves(values, cfg) if current else ():
        _check_key(cfg, key, where)
        _check_type(cfg, key, value, where)
    try:
        _merge_version(cfg, CfgNode(_with_floats(values, cfg)), str(path))
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        raise UserError(f"cannot use {where}: {one_line(error)}") from None


def _merge_version(cfg: CfgNode, loaded: CfgNode, name: str) -> None:
    """What ``CfgNode.merge_from_file`` does with a file that it has read."""
    version = loaded.get("VERSION") or guess_version(loaded, name)
    if version == cfg.VERSION:
        cfg.merge_from_other_cfg(loaded)
        return
    logger.warning("%s is of Detectron2's configuration version %s; it is upgraded", name, version)
    old = downgrade_config(cfg, to_version=version)
    old.merge_from_other_cfg(loaded)
    new = upgrade_config(old)
    cfg.clear()
    cfg.update(new)


def merge_options(cfg: CfgNode, options: Sequence[str]) -> None:
    """Merges ``KEY VALUE`` pairs from the command line into ``cfg``.

    Raises:
        UserError: for an odd number of words, an unknown key, or a value of a wrong type.
    """
    options = list(options)
    if options[:1] == ["--"]:
        del options[0]
    for word in options[::2]:
        if word.startswith("--"):
            raise UserError(
                f"'{word}' comes after a configuration key; arguments that begin with -- go first, "
                "KEY VALUE pairs last"
            )
    if len(options) % 2:
        raise UserError(
            f"the configuration key '{options[-1]}' at the end of the command line has no value; "
            "expected KEY VALUE pairs, separated by spaces"
        )
    for key, value in zip(options[::2], options[1::2], strict=True):
        _check_key(cfg, key, "the command line")
        if names := _one_name(key, value, "the command line"):
            cfg.merge_from_list([key, names])
            continue
        _check_type(cfg, key, value, "the command line")
        is_float = isinstance(_lookup(cfg, key)[1], float)
        number = _decoded(key, value, "the command line") if is_float else value
        cfg.merge_from_list([key, _as_float(number, is_float)])


def _leaves(values: Any, cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; goes only as deep as ``cfg`` has sections."""
    for key, value in values.items():
        section = cfg.get(key) if isinstance(cfg, CfgNode) else None
        if isinstance(value, Mapping) and isinstance(section, CfgNode):
            yield from _leaves(value, section, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _with_lists(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of a file, with one data set alone as a list of it."""
    for key in _NAME_LISTS:
        section, name = key.split(".")
        node = values.get(section)
        if isinstance(node, Mapping) and (names := _one_name(key, node.get(name), where)):
            values = {**values, section: {**node, name: names}}
    return values


def _one_name(key: str, value: Any, where: str) -> tuple[str] | None:
    """A value of `_NAME_LISTS` that is a name alone, as a list."""
    name = _decoded(key, value, where) if isinstance(value, str) else value
    return (name,) if isinstance(name, str) and name and key in _NAME_LISTS else None


def _with_floats(values: Mapping[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """The values of a file; a whole number for a key of type float is one: ``80`` is 80.0."""
    found = {}
    for key, value in values.items():
        default = cfg.get(key)
        if isinstance(value, Mapping) and isinstance(default, CfgNode):
            found[key] = _with_floats(value, default)
        else:
            found[key] = _as_float(value, isinstance(default, float))
    return found


def _as_float(value: Any, wanted: bool) -> Any:
    return float(value) if wanted and type(value) is int else value


def _lookup(cfg: CfgNode, key: str) -> tuple[bool, Any]:
    """Whether ``cfg`` accepts a dotted key, and its present value."""
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode):
            return False, None
        if part not in node:
            return node.is_new_allowed(), None
        node = node[part]
    return True, node


def _check_key(cfg: CfgNode, key: str, where: str) -> None:
    if cfg.key_is_renamed(key):
        try:
            cfg.raise_key_rename_error(key)
        except KeyError as error:
            raise UserError(f"{where} sets an old key: {one_line(error)}") from None
    if cfg.key_is_deprecated(key) or _lookup(cfg, key)[0]:
        return
    known = {name.upper(): name for name, _ in _leaves(cfg, cfg)}
    near = difflib.get_close_matches(key.upper(), known, n=1)
    hint = f"; did you mean '{known[near[0]]}'?" if near else "; check its spelling"
    raise UserError(f"{where} sets the unknown key '{key}'{hint}")


def _check_type(cfg: CfgNode, key: str, value: Any, where: str) -> None:
    """Insists on the type of the default; lists and tuples are the same, and ints are floats."""
    known, default = _lookup(cfg, key)
    value = _decoded(key, value, where) if isinstance(value, str) else value
    if isinstance(default, CfgNode) and not isinstance(value, Mapping):
        raise UserError(f"{where} sets '{key}' to {value!r}, but it is a section of keys")
    if not known or default is None or value is None or isinstance(default, CfgNode):
        return
    sequences = (list, tuple)
    if type(value) is type(default) or (type(value) in sequences and type(default) in sequences):
        return
    if type(default) is float and type(value) is int and abs(value) <= sys.float_info.max:
        return
    raise UserError(
        f"{where} sets '{key}' to {value!r} ({type(value).__name__}); expected "
        f"{type(default).__name__}, such as its default {default!r}"
    )


def _decoded(key: str, text: str, where: str) -> Any:
    """Text as yacs reads it: a Python literal, which cannot call anything, or else itself."""
    try:
        return CfgNode._decode_cfg_value(text)
    except (TypeError, MemoryError, RecursionError) as error:
        shown = text if len(text) <= 50 else f"{text[:50]}…"
        raise UserError(
            f"{where} sets '{key}' to '{shown}', which is no value ({one_line(error)}); expected "
            "a number, text, a list, or quotes around it"
        ) from None


def _choose_device(cfg: CfgNode, args: argparse.Namespace) -> None:
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        reason = "CUDA is not available here"
    elif getattr(args, "num_gpus", 1) == 0:
        reason = "--num-gpus is 0"
    else:
        return
    if comm.is_main_process():
        logger.warning("MODEL.DEVICE is '%s', but %s: running on the CPU", cfg.MODEL.DEVICE, reason)
    cfg.MODEL.DEVICE = "cpu"

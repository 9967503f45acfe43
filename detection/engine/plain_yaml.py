"""YAML as data: plain values alone, in a file and in those that it names as its ``_BASE_``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from backbones.errors import UserError

_TAGS = "tag:yaml.org,2002:"
_TUPLE = f"{_TAGS}python/tuple"
_EVAL = f"{_TAGS}python/object/apply:eval"
_MERGE = f"{_TAGS}merge"
_MAX_VALUES = 100_000

# The one expression of Detectron2's model zoo (Base-RetinaNet.yaml), looked up and never evaluated.
_EXPRESSIONS = {
    "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]": [
        [x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in (32, 64, 128, 256, 512)
    ]
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with tuples and the expressions known by heart."""


def _construct_tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _construct_known(loader: _Loader, node: yaml.SequenceNode) -> list[list[float]]:
    return [list(row) for row in _EXPRESSIONS[node.value[0].value]]


_Loader.add_constructor(_TUPLE, _construct_tuple)
_Loader.add_constructor(_EVAL, _construct_known)


def load_with_bases(name: str, parents: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a YAML file upon those of its ``_BASE_`` files, as Detectron2 merges them.

    A base is a path, relative to the file that names it, or an address that iopath's
    ``PathManager`` can fetch (``https://…``, ``detectron2://…``); its own bases count as well.
    Nothing in any of these files is run.

    Args:
        name: path or address.
        parents: the files that led here by their ``_BASE_``.

    Raises:
        UserError: naming the file, if one is missing, is no YAML of plain values, or is its own
            base.
    """
    where = f"the configuration '{name}'" + (f", the _BASE_ of '{parents[-1]}'" if parents else "")
    if _identity(name) in map(_identity, parents):
        raise UserError(f"{where}, is its own _BASE_; remove one of the references")
    values = _parse(_read(name, where), where)
    bases = values.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list | tuple) else [bases]:
        found = load_with_bases(_beside(name, str(base)), (*parents, name))
        _merge(found, merged, where)
    _merge(values, merged, where)
    return merged


def _read(name: str, where: str) -> bytes:
    try:
        with PathManager.open(name, "rb") as file:
            content: bytes = file.read()
    except FileNotFoundError:
        raise UserError(f"{where}, does not exist; check the path after {BASE_KEY}") from None
    # a handler of addresses raises what its library does
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"cannot read {where}: {one_line(error)}") from None
    return content


def _parse(content: bytes, where: str) -> dict[str, Any]:
    loader = None
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{where} holds no settings; expected lines of the form KEY: VALUE")
        _check_nodes(node, where, {})
        values: dict[str, Any] = loader.construct_document(node)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{where} is nested too deeply; write plain settings") from None
    # dates and numbers that are none raise ValueError
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where} is not valid YAML: {one_line(error)}") from None
    finally:
        if loader is not None:
            loader.dispose()
    return values


def _check_nodes(node: yaml.Node, where: str, sizes: dict[yaml.Node, int]) -> int:
    """Insists on plain values, and on few enough of them where anchors repeat them.

    Args:
        node: not yet built into values.
        where: the file, for error messages.
        sizes: of the nodes checked before; 0 for those under way.

    Returns:
        How many values there are, repetitions counted.
    """
    if node in sizes:
        if not sizes[node]:
            raise UserError(f"{where} has an anchor that holds itself{_line(node)}; write it out")
        return sizes[node]
    if not _is_plain(node):
        tag = node.tag.replace(_TAGS, "!!", 1)
        raise UserError(
            f"{where} has the tag '{tag}'{_line(node)}; a configuration is data and runs nothing: "
            "write plain values (numbers, text, lists, KEY: VALUE)"
        )
    sizes[node] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    size = 1 + sum(_check_nodes(child, where, sizes) for child in children)
    if size > _MAX_VALUES:
        raise UserError(f"{where} repeats its anchors into {size} values{_line(node)}; write fewer")
    sizes[node] = size
    return size


def _is_plain(node: yaml.Node) -> bool:
    if node.tag == _TUPLE:
        return isinstance(node, yaml.SequenceNode)
    if node.tag == _EVAL:
        return isinstance(node, yaml.SequenceNode) and [
            child.value for child in node.value if isinstance(child, yaml.ScalarNode)
        ] in [[text] for text in _EXPRESSIONS]
    return node.tag == _MERGE or node.tag in _Loader.yaml_constructors


def _line(node: yaml.Node) -> str:
    return f" in line {node.start_mark.line + 1}"


def _beside(name: str, base: str) -> str:
    """What ``base`` means in the file ``name``."""
    base = os.path.expanduser(base)
    return base if "://" in base else os.path.join(os.path.dirname(name), base)


def _identity(name: str) -> str:
    return name if "://" in name else os.path.realpath(name)


def _merge(values: Mapping[str, Any], into: dict[str, Any], where: str) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and key in into:
            if not isinstance(into[key], dict):
                raise UserError(f"{where} makes a section of '{key}', which is a value in its base")
            _merge(value, into[key], where)
        else:
            into[key] = value


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())

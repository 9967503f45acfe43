"""Data files: named ones that come with the package, schema versions, and typed parsing."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from backbones.errors import UserError
from backbones.files import read_json
from backbones.paths import config_path

Upgrades = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]
"""By an older schema version: from the keys of an object of that version to those of the next."""

_NONE: Upgrades = types.MappingProxyType({})


def named_file(name_or_path: str | os.PathLike[str], kind: str, *folder: str) -> str:
    """The path of a data file that is given by name or by path.

    Args:
        name_or_path: a path (with a separator, or ending in ``.json``), or the name of a file
            that comes with the package.
        kind: what it is, for the error message ("latency table").
        folder: below ``configs/``.

    Raises:
        UserError: if no file of that name comes with the package.
    """
    text = os.fspath(name_or_path)
    if text.endswith(".json") or os.sep in text:
        return text
    known = named_files(*folder)
    if text not in known:
        raise UserError(
            f"unknown {kind} '{text}'; expected one of {', '.join(known)}, or the path of a file "
            "(*.json)"
        )
    return str(config_path(*folder, f"{text}.json"))


def named_files(*folder: str) -> list[str]:
    """Names of the data files below ``configs/folder``."""
    return sorted(path.stem for path in config_path(*folder).glob("*.json"))


def load_versioned(
    cls: type[Any], path: str, kind: str, version: int, upgrades: Upgrades = _NONE
) -> Any:
    """Reads a dataclass from a JSON file; arguments as for :func:`parse_versioned`.

    Raises:
        UserError: if the file is missing, is not JSON, or does not fit.
    """
    return parse_versioned(cls, read_json(path, kind), version, path, upgrades)


def parse_versioned(
    cls: type[Any], data: Any, version: int, where: str, upgrades: Upgrades = _NONE
) -> Any:
    """:func:`parse_dataclass` for an object that carries its ``schema_version``.

    Args:
        cls: the dataclass.
        data: decoded JSON.
        version: of the schema that is ``cls``.
        where: the object's name in error messages.
        upgrades: one for every older version that is read as well.

    Raises:
        UserError: for another version, and as :func:`parse_dataclass`.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{where} is {data!r}; expected an object with {_field_names(cls)}")
    found, read = data.get("schema_version"), [*sorted(upgrades), version]
    if found not in read:
        raise UserError(
            f"{where}: schema_version is {found!r}, this release reads "
            f"{' and '.join(map(str, read))}; make the file again or upgrade spnas"
        )
    body = {key: value for key, value in data.items() if key != "schema_version"}
    for older in read[read.index(found) : -1]:
        body = upgrades[older](body)
    try:
        return parse_dataclass(cls, body, where)
    except UserError as error:
        # What an object finds wrong with itself is said without the file that it came from.
        raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None


def expect(condition: bool, where: str, value: Any, expected: str) -> None:
    """Raises a UserError that names the value and what was expected instead."""
    if not condition:
        raise UserError(f"{where} is {value!r}; expected {expected}")


def parse_dataclass(cls: type[Any], data: Any, where: str) -> Any:
    """Builds a (nested) dataclass from decoded JSON, checking keys and types.

    Tuples are read from lists. Integers are accepted for floats, booleans for neither.

    Raises:
        UserError: naming the first key that is unknown, missing or of a wrong type.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{where} is {data!r}; expected an object with {_field_names(cls)}")
    known = {item.name: item for item in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - set(known)):
        raise UserError(f"{where}: unknown key '{unknown[0]}'; expected {_field_names(cls)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, item in known.items():
        if name in data:
            values[name] = _parse_value(hints[name], data[name], f"{where}: {name}")
        elif item.default is item.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: the key '{name}' is missing")
    return cls(**values)


def _field_names(cls: type[Any]) -> str:
    return ", ".join(f"'{item.name}'" for item in dataclasses.fields(cls))


def _parse_value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse_dataclass(typing.cast(type, hint), value, where)
    if origin is tuple:
        expect(isinstance(value, list | tuple), where, value, "a list")
        if arguments[1:] != (Ellipsis,):
            expect(len(value) == len(arguments), where, value, f"{len(arguments)} values")
        return tuple(
            _parse_value(arguments[0], item, f"{where}[{index}]")
            for index, item in enumerate(value)
        )
    if origin is Literal:
        expect(value in arguments, where, value, f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _parse_value(arguments[0], value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        expect(isinstance(value, Mapping), where, value, "an object")
        if arguments[1] is Any:
            return dict(value)
        return {
            _parse_key(arguments[0], k, where): _parse_value(arguments[1], v, f"{where}.{k}")
            for k, v in value.items()
        }
    allowed = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}[hint]
    matches = isinstance(value, allowed) and (hint is bool or not isinstance(value, bool))
    expect(matches, where, value, {float: "a number", int: "an integer"}.get(hint, hint.__name__))
    expect(hint is not float or math.isfinite(value), where, value, "a finite number")
    return value


def _parse_key(hint: Any, key: str, where: str) -> Any:
    """A key as it is, or as the type reads it that has ``parse``."""
    if hint is str:
        return key
    try:
        return hint.parse(key)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def to_json(value: Any) -> Any:
    """The inverse of :func:`parse_dataclass`: dataclasses as objects, keys as text."""
    if dataclasses.is_dataclass(value):
        return {item.name: to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value


def to_versioned(value: Any, version: int) -> dict[str, Any]:
    """The inverse of :func:`parse_versioned`: a dataclass with the version of its schema."""
    return {"schema_version": version, **to_json(value)}

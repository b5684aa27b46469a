"""Dataclasses to JSON and back, every field checked."""

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def parsed(kind: type[T], value: object, where: str = "") -> T:
    """`value`, as it came from JSON, as a dataclass. Fields that it does not have are passed over.

    Raises ValueError, which names the field.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'} is no object")
    fields = {}
    for name, field in typing.get_type_hints(kind).items():
        if name not in value:
            raise ValueError(f"{_join(where, name)} is missing")
        fields[name] = _checked(field, value[name], _join(where, name))
    return kind(**fields)


def _checked(kind: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _checked(next(choice for choice in arguments if choice is not types.NoneType), value, where)
    if origin is list and isinstance(value, list):
        return [_checked(arguments[0], element, f"{where}[{at}]") for at, element in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {str(key): _checked(arguments[1], element, _join(where, str(key))) for key, element in value.items()}
    if dataclasses.is_dataclass(kind):
        return parsed(typing.cast("type[Any]", kind), value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{where} is not above 0")
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 1 << 63:
            raise ValueError(f"{where} is out of range")
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise ValueError(f"{where} is not what it should be")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

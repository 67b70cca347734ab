"""Row structs as table rows: which columns, and how each value crosses the border."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from msgspec.structs import fields

from entrepot_chassis.ports import Row

RowT = TypeVar("RowT", bound=Row)
_SCALARS = (
    inspect.IntType,
    inspect.FloatType,
    inspect.BoolType,
    inspect.StrType,
    inspect.BytesType,
    inspect.DateTimeType,
    inspect.DateType,
)


class Mapper:
    """SQL and conversions of one Row class."""

    def __init__(self, kind: type[Row]) -> None:
        table = kind.TABLE
        self.kind, self.table, self.key = kind, table.name, table.key
        self.columns = tuple(field.encode_name for field in fields(kind))
        assert self.key in self.columns, f"{kind.__name__} has no field {self.key}"
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        self._out = {field.encode_name: _converter(field.type) for field in info.fields}
        names = ", ".join(_quoted(column) for column in self.columns)
        marks = ", ".join(f"${number}" for number in range(1, len(self.columns) + 1))
        rest = [column for column in self.columns if column != self.key]
        updates = ", ".join(f"{_quoted(column)} = EXCLUDED.{_quoted(column)}" for column in rest)
        target, key = _quoted(self.table), _quoted(self.key)
        insert = f"INSERT INTO {target} ({names}) VALUES ({marks}) ON CONFLICT"  # noqa: S608
        self.select = f"SELECT {names} FROM {target}"  # noqa: S608
        self.add = f"{insert} DO NOTHING"
        self.put = f"{insert} ({key}) DO UPDATE SET {updates}" if rest else self.add
        self.remove = f"DELETE FROM {target} WHERE {key} = $1"  # noqa: S608

    def values(self, row: Row) -> list[Any]:
        return [self._out[column](getattr(row, column)) for column in self.columns]

    def value(self, column: str, value: object) -> Any:
        """One value for a condition; `column` must be a field."""
        assert column in self._out, f"{self.kind.__name__} has no field {column}"
        return self._out[column](value)

    def find(
        self,
        *,
        where: Mapping[str, object],
        after: object | None,
        descending: bool,
        limit: int,
        lock: bool,
    ) -> tuple[str, list[Any]]:
        """Statement and arguments; NULL is asked for with None, "one of" with a collection."""
        conditions: list[str] = []
        arguments: list[Any] = []
        for column, wanted in where.items():
            name = _quoted(column)
            if wanted is None:
                assert column in self._out, f"{self.kind.__name__} has no field {column}"
                conditions.append(f"{name} IS NULL")
            elif isinstance(wanted, (list, tuple, set, frozenset)):
                arguments.append([self.value(column, one) for one in wanted])
                conditions.append(f"{name} = ANY(${len(arguments)})")
            else:
                arguments.append(self.value(column, wanted))
                conditions.append(f"{name} = ${len(arguments)}")
        if after is not None:
            arguments.append(self.value(self.key, after))
            sign = "<" if descending else ">"
            conditions.append(f"{_quoted(self.key)} {sign} ${len(arguments)}")
        text = self.select + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        text += f" ORDER BY {_quoted(self.key)}{' DESC' if descending else ''} LIMIT {int(limit)}"
        return text + (" FOR UPDATE" if lock else ""), arguments


@cache
def mapper(kind: type[Row]) -> Mapper:
    return Mapper(kind)


def row_of(kind: type[RowT], record: Mapping[str, Any]) -> RowT:
    return msgspec.convert(dict(record), kind)


def rows_of(kind: type[RowT], records: Sequence[Mapping[str, Any]]) -> list[RowT]:
    return [row_of(kind, record) for record in records]


def _converter(kind: inspect.Type) -> Callable[[Any], Any]:
    """Scalars cross as they are, enums by value, all else is JSON (None stays NULL)."""
    if isinstance(kind, inspect.Metadata):
        return _converter(kind.type)
    if isinstance(kind, inspect.UnionType):
        real = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        if len(real) == 1:
            return _converter(real[0])
    if isinstance(kind, inspect.EnumType):
        return _enum_value
    if isinstance(kind, _SCALARS):
        return _as_is
    return _json


def _as_is(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _enum_value(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _json(value: Any) -> Any:
    """Builtins for the jsonb codec; None is SQL NULL, never JSON null."""
    return None if value is None else msgspec.to_builtins(value, str_keys=True)


def _quoted(name: str) -> str:
    assert name.replace("_", "").isalnum(), name
    return f'"{name}"'

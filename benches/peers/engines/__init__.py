"""The peers, by name; each is imported only where it is used."""

from __future__ import annotations

from importlib import import_module

#: Name on the command line, module, class.
ENGINES = {
    "duckdb": ("engines.duckdb", "DuckDb"),
    "polars": ("engines.polars", "Polars"),
    "polars-memory": ("engines.polars", "PolarsInMemory"),
    "chdb": ("engines.chdb", "ClickHouse"),
    "sqlite": ("engines.sqlite", "Sqlite"),
    "datafusion": ("engines.datafusion", "DataFusion"),
}

#: Peers that are programs of their own: see ../kv.
PROGRAMS = ["redb"]
NAMES = [*ENGINES, *PROGRAMS]


def is_in_memory(name: str) -> bool:
    return name in ENGINES and find(name).in_memory


def find(name: str) -> type:
    module, kind = ENGINES[name]
    return getattr(import_module(module), kind)

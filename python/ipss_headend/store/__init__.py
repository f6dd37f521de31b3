"""Everything that must survive. See README.md in this folder."""

from ipss_headend.address import Address
from ipss_headend.store.counters import CounterBlock
from ipss_headend.store.database import Database
from ipss_headend.store.journal import WriteBatch, Written
from ipss_headend.store.records import Cell, Quality, ReadingRow, reading_row
from ipss_headend.store.registry import Layout, LayoutColumn, Meter
from ipss_headend.store.store import Store

__all__ = [
    "Address",
    "Cell",
    "CounterBlock",
    "Database",
    "Layout",
    "LayoutColumn",
    "Meter",
    "Quality",
    "ReadingRow",
    "Store",
    "WriteBatch",
    "Written",
    "reading_row",
]

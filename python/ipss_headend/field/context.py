"""What every read plan works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ipss_headend.config import ReactorConfig
from ipss_headend.field.clock import ClockCheck
from ipss_headend.field.delivery import Newest
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.layouts import LayoutBook
from ipss_headend.field.requests import Requests
from ipss_headend.metrics import Figures
from ipss_headend.store import Store
from ipss_headend.store.database import now_us


@dataclass(frozen=True, slots=True)
class Field:
    """Everything towards meters, as the plans see it."""

    store: Store
    requests: Requests
    layouts: LayoutBook
    newest: Newest
    clocks: ClockCheck
    figures: Figures
    meters: Mapping[int, FleetMeter]
    zone: ZoneInfo
    limits: ReactorConfig
    wall_us: Callable[[], int] = now_us

"""`sales.*`: what the billing plugins made of intervals, compared with what the store says. They answer `x.sales.*`."""

from __future__ import annotations

from datetime import date, timedelta

from ipss_headend.errors import PluginError
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.plugins.accounts import INTERVALS, Accounts, Unit, day_after
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.settled import days_touched
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.rpc.methods.read import MOST_POINTS
from ipss_headend.security.permission import Right
from ipss_headend.store.database import now_us

MOST_DAYS = 1000


class Recompute(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which meters, and the days that have any of these capture times."""

    points: list[str]
    from_ms: int
    to_ms: int
    keep: bool = False
    """Hand the days over anew instead: to a plugin that is new, or was down for longer than the log is kept."""


@method("sales.recompute", Right.MANAGE)
def recompute(call: Call, params: Recompute) -> State:
    """Settle stored intervals once more and compare them with what billing plugins counted, as a job.

    A meter is well when each of its days is the same, bit for bit; what is not the same is in its outcome.
    """
    services = call.services
    accounts, manager = services.accounts, services.plugins
    meters = [call.meter(name, Right.MANAGE) for name in dict.fromkeys(params.points)]
    if not 1 <= len(meters) <= MOST_POINTS:
        raise Fault("E_PARAMS", f"points: 1 to {MOST_POINTS} meters")
    if accounts is None or not manager.asked(INTERVALS):
        raise Fault("E_PLUGIN", f"no plugin is enabled that has {INTERVALS}; plugin.enable plugin=sales is one")
    zone = services.config.time_zone
    until = day_after(now_us(), zone)
    days = [day for day in days_touched(params.from_ms * 1000, params.to_ms * 1000 - 1, zone) if day <= until]
    if not days or days[-1] - days[0] > timedelta(days=MOST_DAYS - 1):
        raise Fault("E_PARAMS", f"from_ms, to_ms: 1 to {MOST_DAYS} days that have begun")

    async def work(job: Job) -> None:
        for meter in meters:
            for plugin in manager.asked(INTERVALS):
                try:
                    differs = await _one(call, accounts, plugin, meter, days, keep=params.keep)
                except PluginError as error:
                    job.note(meter.name, {"ok": False, "error": str(error)})
                else:
                    job.note(meter.name, {"ok": not differs, "days": len(days), "differs": differs[:100]})

    try:
        return state(services.jobs.start("sales.recompute", call.principal.name, [one.name for one in meters], work))
    except RuntimeError as error:
        raise Fault("E_BUSY", str(error)) from error


async def _one(
    call: Call, accounts: Accounts, plugin: PluginProcess, meter: FleetMeter, days: list[date], *, keep: bool
) -> list[str]:
    units: list[Unit] = [(meter.meter_id, day) for day in days]
    if keep:
        await call.services.store.change(await accounts.hand_over(plugin, units))
        return []
    return await accounts.compare(plugin, units)

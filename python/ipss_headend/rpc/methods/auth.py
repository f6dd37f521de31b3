"""`auth.*`: who the caller is and what it may do."""

from __future__ import annotations

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import METHODS, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import NOBODY


class Who(Result, frozen=True):
    """A principal."""

    name: str
    roles: list[str]
    groups: list[str]
    rights: list[str]


class Action(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the caller may want to do."""

    action: str
    """A method's name."""
    target: str | None = None
    """A meter's name."""


class Verdict(Result, frozen=True):
    """Whether it may."""

    allowed: bool
    why: str


@method("auth.whoami", None, open_to_all=True, example={})
def whoami(call: Call, params: Params) -> Who:
    """Who the server takes the caller for."""
    who = call.principal
    return Who(name=who.name, roles=sorted(who.roles), groups=sorted(who.groups), rights=sorted(who.rights))


@method("auth.check", None, example={"action": "read.now", "target": "virtual-00001"})
def check(call: Call, params: Action) -> Verdict:
    """Whether the caller may call a method, for a meter where one is named."""
    found = METHODS.get(params.action)
    if found is None:
        raise Fault("E_METHOD", f'no method is called "{params.action[:128]}"; rpc.methods lists them')
    who = call.principal
    if who is NOBODY and not found.open:
        return Verdict(allowed=False, why="nobody has said who they are")
    if found.right is not None and found.right not in who.rights:
        return Verdict(allowed=False, why=f"it needs the right {found.right}")
    if params.target is not None:
        meter = call.services.names.get(params.target)
        if meter is None or not who.reaches(meter.group):
            return Verdict(allowed=False, why="no such meter is in the caller's scope")
    return Verdict(allowed=True, why="")

"""Who may do what: rights, roles as IEC 62351-8 names them, and the one place where it is decided.

Deny by default: a principal may do what one of its roles has, for the groups of meters that its scope names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache


class Right(StrEnum):
    """What a method needs. Each method declares one, or that it needs none."""

    VIEW = "view"
    """See meters, stored readings, events, jobs."""
    READ = "read"
    """Ask a meter now."""
    MANAGE = "manage"
    """Add, import and retire meters; change read plans."""
    PROPOSE = "propose"
    """Propose a critical command. Alone it moves nothing."""
    APPROVE = "approve"
    """Approve a critical command of somebody else's."""
    STOP = "stop"
    """Stop all critical commands. Whoever sees a fault may."""
    OPERATE = "operate"
    """Health, metrics, drain, backup, plugins."""
    SECURITY = "security"
    """Users, roles, certificates."""
    AUDIT = "audit"
    """Read and verify the audit log."""


class Role(StrEnum):
    """Roles of IEC 62351-8, table 1, and the two that a head-end needs beside them."""

    VIEWER = "VIEWER"
    OPERATOR = "OPERATOR"
    ENGINEER = "ENGINEER"
    INSTALLER = "INSTALLER"
    SECADM = "SECADM"
    SECAUD = "SECAUD"
    RBACMNT = "RBACMNT"
    SERVICE = "SERVICE"
    """Another system or a plugin: sees, asks, proposes; never approves (R15)."""


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.VIEW}),
    Role.OPERATOR: frozenset({Right.VIEW, Right.READ, Right.PROPOSE, Right.APPROVE, Right.STOP, Right.OPERATE}),
    Role.ENGINEER: frozenset({Right.VIEW, Right.READ, Right.MANAGE, Right.PROPOSE, Right.STOP, Right.OPERATE}),
    Role.INSTALLER: frozenset({Right.VIEW, Right.READ, Right.MANAGE}),
    Role.SECADM: frozenset({Right.SECURITY, Right.STOP}),
    Role.SECAUD: frozenset({Right.AUDIT}),
    Role.RBACMNT: frozenset({Right.SECURITY}),
    Role.SERVICE: frozenset({Right.VIEW, Right.READ, Right.PROPOSE}),
}

ALL_GROUPS = "*"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks: a person, another system, or a plugin."""

    name: str
    roles: frozenset[Role] = frozenset()
    groups: frozenset[str] = frozenset({ALL_GROUPS})
    """The groups of meters that its rights reach; `*`: all."""
    scopes: Mapping[Role, frozenset[str]] = field(default_factory=dict, hash=False)
    """Roles that reach other groups than `groups`."""

    @property
    def rights(self) -> frozenset[Right]:
        """What its roles add up to, somewhere."""
        return _rights_of(self.roles)

    def may(self, right: Right | None, group: str | None = None) -> bool:
        """Whether it has this right, for a meter of this group where one is meant. None: needs no right."""
        if right is None:
            return True
        for role in self.roles:
            if right in RIGHTS[role]:
                reached = self.scopes.get(role, self.groups)
                if group is None or ALL_GROUPS in reached or group in reached:
                    return True
        return False

    def everywhere(self, right: Right) -> bool:
        """Whether it has this right for every group, those that do not exist yet among them."""
        return any(right in RIGHTS[role] and ALL_GROUPS in self.scopes.get(role, self.groups) for role in self.roles)


@lru_cache(maxsize=256)
def _rights_of(roles: frozenset[Role]) -> frozenset[Right]:
    return frozenset().union(*(RIGHTS[role] for role in roles))


NOBODY = Principal("nobody")

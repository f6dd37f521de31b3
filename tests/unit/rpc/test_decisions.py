"""Who may call what: every method by every role over a connection, and the same decisions by pycasbin (R37)."""

from __future__ import annotations

import os
import random

import casbin
from casbin.model import Model
from tests.unit.rpc.conftest import World

from ipss_headend.rpc.catalogue import METHODS
from ipss_headend.security.permission import RIGHTS, Principal, Right, Role

DECISIONS = int(os.environ.get("IPSS_DECISIONS", "100000"))
GROUPS = ("north", "south", "east")
MODEL = """
[request_definition]
r = sub, act, grp
[policy_definition]
p = sub, act
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.act == p.act && (g(r.sub, p.sub, r.grp) || g(r.sub, p.sub, "*"))
"""


async def test_every_method_by_every_role_over_a_connection(world: World) -> None:
    for role in Role:
        for group in (*GROUPS, "*"):
            async with world.client(Principal("p", frozenset({role}), frozenset({group}))) as client:
                names = sorted(set(METHODS) - {"auth.logout"})
                # Params that no method takes: what may be called is told so, what may not is refused before.
                await client.send(*([0, number, name, [{"-": 1}]] for number, name in enumerate(names)))
                said = {answer[1]: answer[2] for answer in await client.hear(len(names))}
            for number, name in enumerate(names):
                right = METHODS[name].right
                expected = "E_PARAMS" if right is None or right in RIGHTS[role] else "E_DENIED"
                assert said[number].startswith(expected), (role, group, name, said[number])


def test_pycasbin_decides_the_same() -> None:
    seeded = random.Random(37)
    model = Model()
    model.load_model_from_text(MODEL)
    oracle = casbin.Enforcer(model)
    oracle.add_policies([[role.value, right.value] for role, rights in RIGHTS.items() for right in rights])
    verdicts: dict[tuple[Role, str, Right, str], bool] = {}
    for role in Role:
        for scope in (*GROUPS, "*"):
            oracle.add_grouping_policy(f"{role}/{scope}", role.value, scope)
            for right in Right:
                for group in GROUPS:
                    verdicts[role, scope, right, group] = oracle.enforce(f"{role}/{scope}", right.value, group)
    methods = [method for method in METHODS.values() if method.right is not None]
    for _ in range(DECISIONS):
        scopes = {
            role: frozenset(seeded.sample((*GROUPS, "*"), seeded.randint(0, 2)))
            for role in seeded.sample(list(Role), seeded.randint(0, 3))
        }
        needed, group = seeded.choice(methods).right, seeded.choice(GROUPS)
        assert needed is not None
        expected = any(verdicts[role, scope, needed, group] for role, held in scopes.items() for scope in held)
        assert Principal("p", frozenset(scopes), frozenset(), scopes).may(needed, group) == expected

"""Every method is whole: a right, words, an example or a reason, and its page in the documentation."""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from ipss_headend.client import CHANGES
from ipss_headend.rpc.catalogue import METHODS, Method
from ipss_headend.rpc.document import page
from ipss_headend.rpc.faults import CODES, fault_of
from ipss_headend.security.permission import NOBODY, RIGHTS, Principal, Right, Role

ROOT = Path(__file__).parents[3]
STRANGERS = {
    "rpc.hello",
    "rpc.ping",
    "rpc.methods",
    "rpc.schema",
    "auth.whoami",
    "auth.login",
    "auth.renew",
    "auth.logout",
}


def test_documentation_is_made_from_the_code() -> None:
    assert (ROOT / "docs" / "rpc.md").read_text() == page(), "run: python -m ipss_headend.rpc.document > docs/rpc.md"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_method_declares_what_it_needs_and_gives(method: Method) -> None:
    assert method.right is not None or method.open or method.name in {"rpc.batch", "auth.check"}, method.name
    assert method.open == (method.name in STRANGERS)
    assert method.summary.endswith(".")
    if method.example is not None:
        key = {"key": "k"} if method.changes else {}
        method.decode(msgspec.msgpack.encode([{**method.example, **key}]))
    for schema in (method.params, method.result):
        assert msgspec.json.schema(schema)


def test_client_gives_a_key_to_every_method_that_changes_something() -> None:
    assert {name for name, method in METHODS.items() if method.changes} == CHANGES


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_no_answer_can_have_an_extension_type(method: Method) -> None:
    def look(kind: Any) -> None:
        assert kind not in {datetime.datetime, datetime.date, datetime.timedelta, Decimal, float}, method.name
        for part in get_args(kind):
            look(part)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            for part in get_type_hints(kind).values():
                look(part)

    look(method.result)


def test_every_role_and_right_is_decided() -> None:
    """Each method for each role, as its right says, and for nobody: only what answers strangers."""
    for method in METHODS.values():
        for role in Role:
            principal = Principal("p", frozenset({role}), frozenset({"east"}))
            allowed = method.right is None or method.right in RIGHTS[role]
            assert principal.may(method.right) == allowed
            assert principal.may(method.right, "east") == allowed
            assert principal.may(method.right, "west") == (method.right is None)
        assert NOBODY.may(method.right) == (method.right is None)
    assert not RIGHTS[Role.SERVICE] & {Right.APPROVE, Right.MANAGE, Right.SECURITY, Right.OPERATE}
    assert not RIGHTS[Role.SECAUD] & RIGHTS[Role.OPERATOR]


def test_codes_of_errors_are_documented() -> None:
    from ipss_headend import errors

    for kind in (errors.UnknownMeter, errors.MeterTimeout, errors.StoreFull, errors.NotAuthorised, errors.KeyTampered):
        fault = fault_of(kind("words"))
        assert fault is not None
        assert fault.code in CODES
    assert fault_of(KeyError("x")) is None

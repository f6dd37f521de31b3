"""The device's own *no* in the standard's words (Green Book, Data-Access-Result and Action-Result)."""

from collections.abc import Sequence

from ipss_headend.errors import DONE, PARTLY_DONE

RESULTS = {
    1: "hardware-fault",
    2: "temporary-failure",
    3: "read-write-denied",
    4: "object-undefined",
    9: "object-class-inconsistent",
    11: "object-unavailable",
    12: "type-unmatched",
    13: "scope-of-access-violated",
    14: "data-block-unavailable",
    15: "long-transfer-aborted",
    16: "no-long-transfer-in-progress",
    17: "long-set-aborted",
    18: "no-long-set-in-progress",
    19: "data-block-number-invalid",
    250: "other-reason",
}


def overall(statuses: Sequence[int]) -> int:
    """0 when all have a value, 8 when some have, else what kept the first from having one."""
    failed = [status for status in statuses if status != DONE]
    if not failed:
        return DONE
    return failed[0] if len(failed) == len(statuses) else PARTLY_DONE


def result_name(code: int) -> str:
    """The name of a result; its number where the standard has none."""
    return RESULTS.get(code, f"result-{code}")


def refusal(code: int) -> dict[str, object]:
    """A refusal as JSON answers carry it."""
    name = result_name(code)
    return {"fault": "remote", "code": name, "number": code, "message": f"the device refused: {name} ({code})"}

"""What a call may fail with: a code that programs compare and words for people (docs/rpc.md, "Errors")."""

from ipss_headend import errors


class Fault(Exception):
    """A call's error. `code` begins with `E_`; `text` names the thing, what was found and what was expected."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


CODES = {
    "E_PROTOCOL": "the message is no msgpack-RPC or breaks a wire rule; the connection is closed",
    "E_METHOD": "there is no such method",
    "E_PARAMS": "the params do not fit the method's schema",
    "E_AUTH": "the caller has not said who it is, or could not prove it",
    "E_DENIED": "the caller may not do this, or not to this meter",
    "E_UNKNOWN": "a meter, job, cursor or other thing of this name does not exist",
    "E_KEY": "the idempotency key was used before with other params",
    "E_RATE": "too many calls; the text ends with the milliseconds after which to try again",
    "E_BUSY": "something that is needed is busy or full; try again later",
    "E_DEADLINE": "the deadline passed first; a call that changes something may still take effect",
    "E_TIMEOUT": "the meter did not answer in time",
    "E_UNREACHABLE": "the meter could not be reached",
    "E_REFUSED": "the meter said no",
    "E_VIOLATION": "the meter broke its protocol",
    "E_SECURITY": "authentication with the meter failed, or its security is weaker than pinned",
    "E_PLUGIN": "a plugin refused, failed, or took too long",
    "E_STORE": "the store could not do it",
    "E_DRAINING": "the head-end is stopping",
    "E_INTERNAL": "a fault of the head-end's own; its log has the rest",
}

_BY_ERROR: tuple[tuple[type[Exception], str], ...] = (
    (errors.UnknownMeter, "E_UNKNOWN"),
    (errors.UnknownSubject, "E_UNKNOWN"),
    (errors.NotAuthorised, "E_DENIED"),
    (errors.MeterTimeout, "E_TIMEOUT"),
    (errors.MeterGone, "E_UNREACHABLE"),
    (errors.MeterRefused, "E_REFUSED"),
    (errors.ProtocolViolation, "E_VIOLATION"),
    (errors.AuthenticationFailed, "E_SECURITY"),
    (errors.ConfigError, "E_PARAMS"),
    (errors.RequestError, "E_PARAMS"),
    (errors.PluginError, "E_PLUGIN"),
    (errors.StoreUnavailable, "E_BUSY"),
    (errors.StoreError, "E_STORE"),
    (errors.KeystoreError, "E_SECURITY"),
)


def fault_of(error: Exception) -> Fault | None:
    """One of ours as a caller sees it; None: a fault of the head-end's own, of which a caller learns no more."""
    if isinstance(error, Fault):
        return error
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return Fault(code, str(error))
    return None

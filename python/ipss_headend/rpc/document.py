"""Makes `docs/rpc.md` from the table of methods; a test compares.

python -m ipss_headend.rpc.document > docs/rpc.md
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

import msgspec

from ipss_headend.rpc import methods  # noqa: F401 - fills the table
from ipss_headend.rpc.catalogue import METHODS, Method
from ipss_headend.rpc.faults import CODES
from ipss_headend.security.permission import RIGHTS, Right

HEAD = """\
# RPC

msgpack-RPC as its specification has it, so that unmodified clients in any language work: a request is
`[0, number, method, params]`, an answer `[1, number, error, result]`, a notification `[2, method, params]`. This page
is made from the code (`python -m ipss_headend.rpc.document`).

```sh
ipss-headend rpc read.last points[]=virtual-00001 items[]=1.0.1.8.0.255 --config utility/head_end.toml
```
```python
from ipss_headend.client import Client

with Client("unix:utility/data/rpc.sock") as head_end:
    print(head_end.call("read.last", points=["virtual-00001"], items=["1.0.1.8.0.255"])["values"])
    for happened in head_end.stream("readings", cursor=0):  # goes on where it was, whatever breaks
        print(happened["cursor"], len(happened["events"]))
```

## Wire rules
- Params are one map in an array, `[{"points": [...]}]`; values in the order of the schema are taken too.
- Times are whole milliseconds of UTC since 1970, energy and money are decimal texts, keys of maps are text. No answer
  has an extension type.
- An error is one text, `E_CODE: words`; `[code, words]` for a client that asked for it in `rpc.hello`.
- A method's name may be text or bin. Unknown notifications are ignored.
- A message of more than 1 MiB (4 KiB before it is known who calls), deeper than 16, with an extension type, a key that
  is no text or stands twice in its map, NaN, or text that is no UTF-8 ends the connection with `E_PROTOCOL`.
- Calls may be pipelined; answers come in the order in which they are ready, 256 calls at once. A client that does not
  read its answers is not read either, and after 30 s is cut off.
- A method that changes something takes a `key`, any text that is used once. A repeat of the call with its key has the
  first one's answer and no second effect, restarts included, for a week; the key with other params is refused.
- `deadline_ms` bounds a call, its waiting included; 60 s if it is left out.
- Lists take `cursor` and `limit`. Results may grow within version 1, never shrink.

## Who calls
Over TCP (`[rpc] port` in [configuration.md](configuration.md)) both sides show a certificate, in TLS 1.3. A client's
has to be of the configured authority's and registered as an account's own. Another system is in with that; a person
who has a password calls `auth.login` first. The token that it gets is good for 15 minutes and for connections with the
same certificate. There is no plain TCP: a client without TLS goes through a relay on its own machine that has its
certificate and key:

```sh
socat TCP-LISTEN:4061,bind=127.0.0.1,fork OPENSSL:head-end.example:4060,cert=me.pem,key=me.key,cafile=authority.pem
```

A new head-end has no accounts and no password: its own user makes the first ones over the unix socket.

```sh
ipss-headend users add ada --certificate ada.pem
ipss-headend users grant ada SECADM
ipss-headend users password ada
```

On the unix socket the user that the head-end runs as, and root, have every role but SERVICE; other users have none.
"""


def page() -> str:
    """The whole of `docs/rpc.md`."""
    return "\n".join([HEAD, *_errors(), *_rights(), *_methods()]) + "\n"


def _errors() -> Iterator[str]:
    yield "## Errors\n| code | meaning |\n|---|---|"
    for code, words in CODES.items():
        yield f"| `{code}` | {words} |"
    yield ""


def _rights() -> Iterator[str]:
    yield "## Roles and rights\n| role | " + " | ".join(Right) + " |"
    yield "|---|" + "---|" * len(Right)
    for role, rights in RIGHTS.items():
        yield f"| {role} | " + " | ".join("x" if right in rights else "" for right in Right) + " |"
    yield ""


def _methods() -> Iterator[str]:
    found = sorted(METHODS.values(), key=lambda method: method.name)
    for space, group in groupby(found, key=lambda method: method.name.partition(".")[0]):
        yield f"## `{space}.*`"
        for method in group:
            yield from _method(method)


def _method(method: Method) -> Iterator[str]:
    needs = "needs no right" if method.right is None else f"right `{method.right}`"
    also = [needs, *(["answers anybody"] if method.open else []), *(["takes a key"] if method.changes else [])]
    yield f"### `{method.name}`\n{method.description}\n\n{', '.join(also)}\n"
    params = _fields(method.params)
    common = {"deadline_ms"} | ({"key"} if method.changes else set())
    own = {name: words for name, words in params.items() if name not in common}
    if own:
        yield "| param | |\n|---|---|"
        yield from (f"| `{name}` | {words} |" for name, words in own.items())
        yield ""
    result = _fields(method.result)
    if result:
        yield "| result | |\n|---|---|"
        yield from (f"| `{name}` | {words} |" for name, words in result.items())
        yield ""
    if method.example is not None:
        yield f"```json\n{msgspec.json.encode(dict(method.example)).decode()}\n```\n"


def _fields(struct: type[msgspec.Struct]) -> dict[str, str]:
    found = {}
    said = _said(struct)
    for field in msgspec.structs.fields(struct):
        words = _type(field.type)
        if not field.required:
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            words += f", default `{msgspec.json.encode(default).decode()}`"
        found[field.name] = f"{words}. {said[field.name]}" if field.name in said else words
    return found


def _said(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What stands under each field in the source."""
    found: dict[str, str] = {}
    for kind in struct.__mro__:
        if not (issubclass(kind, msgspec.Struct) and kind.__module__.startswith("ipss_headend")):
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, words in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr) and isinstance(field.target, ast.Name):
                found.setdefault(field.target.id, " ".join(ast.literal_eval(words.value).split()))
    return found


def _type(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not getattr(kind, "__args__", None) else str(kind)
    for module in ("typing.", "ipss_headend.rpc.methods."):
        text = text.replace(module, "")
    text = ".".join(part for part in [text.rpartition(".")[2]] if part) if "[" not in text and "|" not in text else text
    return "`" + text.replace("|", "\\|") + "`"


if __name__ == "__main__":
    sys.stdout.write(page())

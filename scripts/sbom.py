#!/usr/bin/env python3
"""The bill of materials: every crate and Python package that is locked, with its hashes, as CycloneDX 1.6.

    scripts/sbom.py build FILE                write it
    scripts/sbom.py check FILE                is every locked dependency in it, with its hashes?
    scripts/sbom.py check FILE --installed PYTHON    ... and every package that this Python has?

From Cargo.lock (the extension and its tests) and requirements/run.lock (what a head-end runs with). The same locks make
the same octets. A lock does not tell the crates that only tests take from the others.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXTENSION = "ipss-core"
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""Of URLs (RFC 9562): the serial number follows from what is in it."""

_REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$")
_HASH = re.compile(r"^\s+--hash=sha256:([0-9a-f]{64})\s*\\?$")

Component = dict[str, Any]


def crates(lock: Path) -> list[dict[str, Any]]:
    """The packages of a Cargo.lock."""
    found: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    return found


def packages(lock: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, version, marker and SHA-256 of each file, of a lock of requirements.

    Raises:
        ValueError: a line that is none of these, or a package without a hash.
    """
    name, version, marker, hashes = "", "", "", list[str]()
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if found := _HASH.match(line):
            hashes.append(found[1])
            continue
        if name:
            yield name, version, marker, _some(hashes, name)
        found = _REQUIREMENT.match(line)
        if found is None:
            raise ValueError(f"{lock}:{number}: neither a package nor its hash: {line}")
        name, version, marker, hashes = _normal(found[1]), found[2], found[3] or "", []
    if name:
        yield name, version, marker, _some(hashes, name)


def bill(root: Path) -> dict[str, Any]:
    """The document.

    Raises:
        ValueError: something is locked without a hash.
    """
    locked = crates(root / "Cargo.lock")
    version = next(one["version"] for one in locked if one["name"] == EXTENSION)
    components, edges, roots = _of_crates(locked)
    for name, number, marker, hashes in packages(root / "requirements" / "run.lock"):
        reference = f"pkg:pypi/{name}@{number}"
        roots.append(reference)
        edges.append({"ref": reference})
        component: Component = {
            "type": "library",
            "bom-ref": reference,
            "name": name,
            "version": number,
            "purl": reference,
            "scope": "optional" if marker else "required",
            # One of these files is installed, as the platform needs it.
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": f"https://pypi.org/simple/{name}/",
                    "hashes": [{"alg": "SHA-256", "content": one} for one in sorted(hashes)],
                }
            ],
        }
        if marker:
            component["properties"] = [{"name": "python:marker", "value": marker}]
        components.append(component)
    own = f"pkg:pypi/ipss-headend@{version}"
    edges.append({"ref": own, "dependsOn": sorted(roots)})
    body = {
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "scripts/sbom.py"}]},
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "ipss-headend",
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": sorted(components, key=lambda one: one["bom-ref"]),
        "dependencies": sorted(edges, key=lambda one: one["ref"]),
    }
    number = uuid.uuid5(NAMESPACE, json.dumps(body, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        **body,
    }


def missing(document: dict[str, Any], root: Path) -> list[str]:
    """What is locked and not in a document, or there with other hashes: looked for line by line in the locks."""
    known = {one["purl"]: _hashes(one) for one in document.get("components", ())}
    problems = []
    for block in (root / "Cargo.lock").read_text(encoding="utf-8").split("[[package]]")[1:]:
        said = dict(re.findall(r'^(name|version|source|checksum) = "(.*)"$', block, re.MULTILINE))
        if "source" not in said:
            continue  # ours
        purl = f"pkg:cargo/{said['name']}@{said['version']}"
        if known.get(purl) != {said.get("checksum")}:
            problems.append(f"{purl}: {'other hashes' if purl in known else 'missing'}")
    wanted: dict[str, set[str]] = {}
    purl = ""
    for line in (root / "requirements" / "run.lock").read_text(encoding="utf-8").splitlines():
        if line[:1].strip() and not line.startswith("#"):
            name, _, rest = line.partition("==")
            purl = f"pkg:pypi/{_normal(name)}@" + re.split(r"[ ;\\]", rest)[0]
            wanted[purl] = set()
        elif "--hash=sha256:" in line:
            wanted[purl].add(line.partition("--hash=sha256:")[2].rstrip(" \\"))
    problems += [
        f"{purl}: {'other hashes' if purl in known else 'missing'}"
        for purl, hashes in wanted.items()
        if not hashes or known.get(purl) != hashes
    ]
    return problems


def unlisted(document: dict[str, Any], python: str) -> list[str]:
    """What a Python has installed, pip and ourselves aside, that the document does not name."""
    names = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    ran = subprocess.run([python, "-c", names], check=True, capture_output=True, text=True)  # noqa: S603 - the caller's
    found = ran.stdout.split()
    known = {one["purl"] for one in document.get("components", ())}
    purls = {f"pkg:pypi/{_normal(name)}@{version}" for name, _, version in (one.partition("==") for one in found)}
    ours = re.compile(r"pkg:pypi/(pip|setuptools|wheel|ipss-headend)@")
    return [f"{purl}: installed and not listed" for purl in sorted(purls - known) if not ours.match(purl)]


def _of_crates(locked: list[dict[str, Any]]) -> tuple[list[Component], list[dict[str, Any]], list[str]]:
    """Components, edges, and what our own crates take."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in locked:
        by_name.setdefault(one["name"], []).append(one)

    def found(word: str) -> dict[str, Any]:
        name, _, version = word.partition(" ")
        chosen = [one for one in by_name[name] if not version or one["version"] == version.partition(" ")[0]]
        [only] = chosen
        return only

    components: list[Component] = []
    edges: list[dict[str, Any]] = []
    roots: set[str] = set()
    for one in locked:
        needs = [found(word) for word in one.get("dependencies", [])]
        if "source" not in one:
            roots |= {_purl(need) for need in needs if "source" in need}
            continue
        if one["source"] != REGISTRY or "checksum" not in one:
            raise ValueError(f"{one['name']} {one['version']}: not from crates.io with its hash")
        components.append(
            {
                "type": "library",
                "bom-ref": _purl(one),
                "name": one["name"],
                "version": one["version"],
                "purl": _purl(one),
                "hashes": [{"alg": "SHA-256", "content": one["checksum"]}],
            }
        )
        edges.append({"ref": _purl(one), **({"dependsOn": sorted({_purl(need) for need in needs})} if needs else {})})
    return components, edges, sorted(roots)


def _hashes(component: Component) -> set[str | None]:
    listed = [*component.get("hashes", ())]
    for reference in component.get("externalReferences", ()):
        listed += reference.get("hashes", ())
    return {one["content"] for one in listed if one["alg"] == "SHA-256"}


def _purl(one: dict[str, Any]) -> str:
    return f"pkg:cargo/{one['name']}@{one['version']}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _some(hashes: list[str], name: str) -> list[str]:
    if not hashes:
        raise ValueError(f"{name}: locked without a hash")
    return hashes


def main(arguments: Iterable[str]) -> int:
    """The command; 1 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("build", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--installed", metavar="PYTHON", help="whose packages have to be in it, too")
    asked = parser.parse_args([*arguments])
    if asked.what == "build":
        asked.file.write_text(json.dumps(bill(ROOT), indent=1) + "\n", encoding="utf-8")
        return 0
    document = json.loads(asked.file.read_text(encoding="utf-8"))
    problems = missing(document, ROOT) + (unlisted(document, asked.installed) if asked.installed else [])
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    if not problems:
        sys.stdout.write(f"{asked.file.name}: {len(document['components'])} components, none is missing\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""R45: the bill of materials has every locked dependency with its hashes, and a check that sees what is missing."""

import copy
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "scripts" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SBOM = script()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(SBOM.bill(ROOT)))
    return made


def test_every_locked_dependency_is_in_it_with_its_hashes(document: dict[str, Any]) -> None:
    assert SBOM.missing(document, ROOT) == []
    assert SBOM.bill(ROOT) == document, "the same locks make the same bill"
    known = {one["purl"].partition("@")[0] for one in document["components"]}
    assert {"pkg:cargo/aes-gcm", "pkg:cargo/rustls", "pkg:pypi/trio", "pkg:pypi/psycopg-binary"} <= known
    assert not any(one["name"].startswith("ipss") for one in document["components"])


def test_every_edge_leads_to_a_component(document: dict[str, Any]) -> None:
    references = [one["bom-ref"] for one in document["components"]] + [document["metadata"]["component"]["bom-ref"]]
    edges = document["dependencies"]

    assert len(references) == len(set(references))
    assert sorted(edge["ref"] for edge in edges) == sorted(references)
    assert {need for edge in edges for need in edge.get("dependsOn", ())} <= set(references)


def test_what_is_left_out_or_has_another_hash_is_told(document: dict[str, Any]) -> None:
    for every in (0, 1):
        kept = document["components"][every::2]
        gone = [one["purl"] for one in document["components"][1 - every :: 2]]
        other = copy.deepcopy(document)
        for one in other["components"][1 - every :: 2]:
            hashes = one.get("hashes") or one["externalReferences"][0]["hashes"]
            hashes[0]["content"] = "0" * 64

        assert sorted(SBOM.missing({"components": kept}, ROOT)) == sorted(f"{purl}: missing" for purl in gone)
        assert sorted(SBOM.missing(other, ROOT)) == sorted(f"{purl}: other hashes" for purl in gone)


def test_what_is_installed_beside_the_lock_is_told(document: dict[str, Any]) -> None:
    less = {**document, "components": [one for one in document["components"] if one["name"] != "trio"]}

    assert not any("pkg:pypi/trio@" in one for one in SBOM.unlisted(document, sys.executable))
    assert any("pkg:pypi/trio@" in one for one in SBOM.unlisted(less, sys.executable))


@pytest.mark.parametrize("line", ["trio==0.35.0\n", "trio>=0.30 \\\n    --hash=sha256:" + "0" * 64 + "\n"])
def test_what_is_not_pinned_by_hash_makes_no_bill(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.lock").write_text(line)
    (tmp_path / "Cargo.lock").write_text((ROOT / "Cargo.lock").read_text())

    with pytest.raises(ValueError, match=r"without a hash|neither a package nor its hash"):
        SBOM.bill(tmp_path)


def test_a_crate_from_elsewhere_makes_no_bill(tmp_path: Path) -> None:
    (tmp_path / "Cargo.lock").write_text(
        '[[package]]\nname = "ipss-core"\nversion = "0.1.0"\n\n'
        '[[package]]\nname = "elsewhere"\nversion = "1.0.0"\nsource = "git+https://example.org/elsewhere#abc"\n'
    )

    with pytest.raises(ValueError, match=r"elsewhere 1\.0\.0: not from crates\.io with its hash"):
        SBOM.bill(tmp_path)

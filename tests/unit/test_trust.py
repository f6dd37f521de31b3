"""The catalogue behind `make trust` is whole, and SECURITY.md says what the kept results say."""

import re

from tests.trust import catalogue
from tests.trust.catalogue import BEGIN, END, REQUIREMENTS, ROOT, Result, Run, load, results, table, written
from tests.trust.run import choose

RUNS, MISSING = load()


def test_every_requirement_is_shown_or_says_why_not() -> None:
    shown = {requirement for run in RUNS for requirement in run.proves}

    assert shown | set(MISSING) == set(REQUIREMENTS)
    assert not shown & set(MISSING)
    assert len({run.name for run in RUNS}) == len(RUNS)


def test_every_test_that_a_run_names_exists() -> None:
    for run in RUNS:
        assert sum(map(bool, (run.python, run.rust, run.command))) == 1, run.name
        for named in run.python:
            path, _, test = named.partition("::")
            text = (ROOT / "tests" / path).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in text, named
        if run.rust:
            package = {"core": "rust", "dlms": "protocols/dlms", "modbus": "protocols/modbus", "fuzz": "tests/fuzz"}
            home = ROOT / package[run.rust[1].removeprefix("ipss-")]
            targets = [name for flag, name in zip(run.rust, run.rust[1:], strict=False) if flag == "--test"]
            assert all((home / "tests" / f"{name}.rs").exists() for name in targets), run.name


def test_every_variable_of_a_count_is_read_by_its_tests() -> None:
    for run in RUNS:
        sources = [ROOT / "tests" / path.partition("::")[0] for path in run.python]
        sources += [*(ROOT / "rust/tests").glob("*.rs"), *(ROOT / "protocols/dlms/tests").glob("*.rs")] * bool(run.rust)
        text = "".join(path.read_text(encoding="utf-8") for path in sources)
        assert all(f'"{name}"' in text for name in run.count), run.name
        assert set(re.findall(r"\{(\w+)\}", run.shows)) == set(run.count), run.name


def test_the_table_is_what_the_results_say() -> None:
    said = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

    assert written(said, table(RUNS, MISSING, results())) == said, "run `make trust`, or tests/trust/table.py"
    rows = said.partition(BEGIN)[2].partition(END)[0]
    assert all(re.search(rf"^\| [^|]*\b{name}\b", rows, re.MULTILINE) for name in REQUIREMENTS)


def test_a_failure_and_a_greater_count_of_another_day_are_told() -> None:
    run = Run(
        "kills", ("R1",), "{IPSS_KILLS} kills", "0 lost", python=("unit/test_trust.py",), count={"IPSS_KILLS": (5, 9)}
    )

    def result(day: int, count: int, failed: int) -> Result:
        return Result("kills", f"2026-01-{day:02}T00:00:00Z", "abc", "usual", {"IPSS_KILLS": count}, 3, failed, 1.0)

    bad = table([run], {}, [result(1, 9000, 0), result(2, 5, 1)])

    assert "| 5 kills | 2026-01-02 | **FAILED**: 1 of 4; with 9,000 on 2026-01-01 |" in bad
    assert "| 5 kills | 2026-01-03 | 0 lost |" in table([run], {}, [result(3, 5, 0)])
    assert "*not run by this command yet*" in table([run], {}, [])


def test_runs_are_chosen_by_requirement_and_by_age() -> None:
    old, new = (
        Result(RUNS[place].name, f"2026-01-0{place + 1}T00:00:00Z", "", "usual", {}, 1, 0, 1.0) for place in (0, 1)
    )

    assert all("R14" in run.proves for run in choose(RUNS, {"R14"}, []))
    assert choose(RUNS[:2], set(), [new, old]) == RUNS[:2]
    assert choose(RUNS[:2], set(), [new]) == RUNS[:2]
    assert choose(RUNS[:2], set(), [old]) == [RUNS[1], RUNS[0]]
    assert catalogue.TIERS == ("usual", "release")

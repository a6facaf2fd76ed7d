"""The long-tailed parts against the released code; each file beside this one with `longtail` in its name may hold more
entries of the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import longtail_parts
import openset_parts
import pytest
from longtail_parts import FAULTS

CHECKS = longtail_parts.CHECKS | openset_parts.CHECKS


def entries() -> dict[str, Any]:
    """Those of all files, by name; a name that a file has after another one is FILE/NAME."""
    found: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("*longtail*.json")):
        for name, entry in json.loads(path.read_text()).items():
            if name not in ("description", "source"):
                found[f"{path.stem}/{name}" if name in found else name] = entry
    return found


ENTRIES = entries()


@pytest.mark.parametrize("name", ENTRIES)
def test_entry(name: str) -> None:
    kind = name.rpartition("/")[2]
    if reason := FAULTS.get(kind):
        pytest.skip(f"{name}: {reason}")
    assert kind in CHECKS, f"{name}: no entry of this name is known here; known: {', '.join(CHECKS)}"
    CHECKS[kind](name, ENTRIES[name])


def test_every_check_has_its_numbers() -> None:
    assert CHECKS.keys() <= ENTRIES.keys()


def test_unknown_entries_fail_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENTRIES, "abc_others", {})
    with pytest.raises(
        AssertionError, match=r"^abc_others: no entry of this name is known here; known: fixmatch, abc_"
    ):
        test_entry("abc_others")
    monkeypatch.setitem(ENTRIES, "other/daso_authors", {**ENTRIES["daso_authors"], "wavy": []})
    with pytest.raises(AssertionError, match=r"^other/daso_authors: no variant wavy is known here"):
        test_entry("other/daso_authors")
    monkeypatch.setitem(ENTRIES, "iomatch", {**ENTRIES["iomatch"], "runs": {"hard": {}}})
    with pytest.raises(AssertionError, match=r"^iomatch/hard: no run hard is known here"):
        test_entry("iomatch")

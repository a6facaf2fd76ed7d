"""The configuration of every algorithm: values that come back, values that are refused, what is written about it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from algorithm_cases import K
from fewlabels.algorithms import ALGORITHMS, Composed, FixMatch, Imbalance, Missing, OpenSet
from fewlabels.algorithms.imbalance import USERS
from fewlabels.commands.train_options import read
from fewlabels.config.plain import from_dict, to_dict
from fewlabels.config.settings import Train
from fewlabels.runtime.checked import Range

DOCS = Path(__file__).parents[2] / "docs"
PARTS: dict[str, Any] = {"imbalance": Imbalance, "missing": Missing, "openset": OpenSet}
"""Those that any algorithm of the consistency family takes, by the field that it has for them."""
PAGES = {Imbalance: "parts.md", Missing: "algorithms/cadr.md", OpenSet: "parts.md"}
FIELDS = [(cls, f) for cls in ALGORITHMS.values() for f in dataclasses.fields(cls) if f.name not in PARTS]
FIELDS += [(cls, f) for cls in PARTS.values() for f in dataclasses.fields(cls)]


def named(cls: Any, field: dataclasses.Field[Any]) -> str:
    return f"{cls.name if cls in ALGORITHMS.values() else cls.__name__}.{field.name}"


every_algorithm = pytest.mark.parametrize("cls", ALGORITHMS.values(), ids=list(ALGORITHMS))
every_field = pytest.mark.parametrize(("cls", "field"), FIELDS, ids=[named(c, f) for c, f in FIELDS])


def made(cls: Any, **values: Any) -> Any:
    """The configuration with these values, of a part with what they mean something with."""
    if cls is Imbalance and "name" not in values:
        values["name"] = USERS[next(iter(values))][0]
    if cls is Missing and "name" not in values:
        values["name"] = "cadr"
    if cls is OpenSet and "name" not in values:
        values |= {"name": "ova" if {"weight", "entropy"} & {*values} else "energy"}
        values |= {"by": "percentile"} if "share" in values else {}
        if "threshold" in values or values.get("by") == "value":
            values = {"by": "value", "threshold": 1.0} | values
    return cls(**values)


def hint(cls: type, field: dataclasses.Field[Any]) -> Any:
    return get_type_hints(cls, include_extras=True)[field.name]


def bounds(kind: Any) -> tuple[Any, Range | None]:
    if get_origin(kind) is Annotated:
        plain, *marks = get_args(kind)
        return plain, next((mark for mark in marks if isinstance(mark, Range)), None)
    return kind, None


def allowed(kind: Any, outer: Range | None = None) -> list[Any]:
    """Values of a type, the ends of its range (or of that around it) among them."""
    kind, limits = bounds(kind)
    limits = limits or outer
    if kind is bool:
        return [True, False]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) is tuple:
        return [("runs/a", "runs/b") if get_args(kind)[0] is str else tuple(range(1, K + 1)), ()]
    if get_origin(kind) in (Union, types.UnionType):
        return [value for part in get_args(kind) for value in allowed(part, limits)]
    if kind is type(None):
        return [None]
    assert kind in (int, float) and limits is not None and limits.low is not None
    step = 1 if kind is int else 0.125
    values = [kind(limits.low + step), kind(limits.low + 3 * step)]
    values += [] if limits.low_open else [kind(limits.low)]
    values += [] if limits.high is None or limits.high_open else [kind(limits.high)]
    return [value for value in values if value in limits]


def refused(kind: Any, outer: Range | None = None) -> list[Any]:
    """Values beside a type's range (or that around it), and of other types."""
    kind, limits = bounds(kind)
    limits = limits or outer
    if kind is bool:
        return [0, 1, "true", None]
    if kind is str:
        return [0, 1.0, None, True]
    if get_origin(kind) is Literal:
        return ["", get_args(kind)[0].upper() + "x", 1, None, True]
    if get_origin(kind) is tuple:
        return [1.0, "1", None, *[(value,) for value in refused(get_args(kind)[0])]]
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        return [value for value in refused(parts[0], limits) if value is not None]
    assert limits is not None and limits.low is not None, "every number has a range, with a lower end at least"
    small = 1 if kind is int else 1e-9
    beyond: list[Any] = [limits.low - small] + [limits.low] * limits.low_open
    if limits.high is not None:
        beyond += [limits.high + small] + [limits.high] * limits.high_open
    fractions = [limits.low + 1.5] if kind is int else []
    return [*beyond, *fractions, float("nan"), float("inf"), "0.5", None, True, (1.0,)]


@every_field
def test_every_field_comes_back_from_json(cls: type, field: dataclasses.Field[Any]) -> None:
    values = [value for value in allowed(hint(cls, field)) if value != field.default]
    assert values, "no value but the default can be tried"
    for value in values:
        config = made(cls, **{field.name: value})
        part = next((name for name, part in PARTS.items() if part is cls), None)
        text = json.dumps(to_dict(Train(algorithm=FixMatch(**{part: config}) if part else config)), allow_nan=False)
        back, written = from_dict(json.loads(text)).algorithm, json.loads(text)["algorithm"]
        if part:
            back, written = getattr(back, part), written[part]
        assert back == config and type(getattr(back, field.name)) is type(getattr(config, field.name))
        assert written[field.name] == (list(value) if isinstance(value, tuple) else value)


@every_field
def test_every_field_is_checked(cls: type, field: dataclasses.Field[Any]) -> None:
    for value in refused(hint(cls, field)):
        with pytest.raises(ValueError) as caught:
            made(cls, **{field.name: value})
        sentence = str(caught.value)
        assert sentence.startswith(f"{cls.__name__}.{field.name} must be "), value
        assert sentence.endswith(f", got {value!r}") and "\n" not in sentence


@pytest.mark.slow
@every_algorithm
def test_every_field_is_an_option(cls: Any) -> None:
    """All of them at once on the command line, each with two values that are not its default."""
    fields = [field for field in dataclasses.fields(cls) if field.name not in PARTS]
    values = [[value for value in allowed(hint(cls, field)) if value != field.default][:2] for field in fields]
    for row in itertools.islice(zip(*(itertools.cycle(column) for column in values), strict=True), 2):
        words = [cls.name, "--data", "digits@40"]
        for field, value in zip(fields, row, strict=True):
            option = "--" + field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(option if value else option.replace("--", "--no-", 1))
            else:
                words += [option, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
        expected = cls(**{field.name: value for field, value in zip(fields, row, strict=True)})
        assert read(words).train.algorithm == expected


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_a_part_is_an_option(part: str) -> None:
    """One after another, with what it means something with."""
    cls = PARTS[part]
    for field in dataclasses.fields(cls):
        value = next(value for value in allowed(hint(cls, field)) if value != field.default)
        expected = made(cls, **{field.name: value})
        words = ["fixmatch", "--data", "digits@40"]
        for other in dataclasses.fields(cls):
            if (given := getattr(expected, other.name)) != other.default:
                words.append(f"--{part}" if other.name == "name" else f"--{part}.{other.name}")
                words += map(str, given) if isinstance(given, tuple) else [str(given)]
        assert read(words).train.algorithm == FixMatch(**{part: expected})


@every_algorithm
def test_no_field_is_named_like_one_of_the_training(cls: type) -> None:
    """`fewlabels train NAME --steps 3` would have two meanings."""
    taken = {field.name for field in dataclasses.fields(Train)} | {"out", "overwrite", "resume", "config", "baseline"}
    taken |= {"dry_run", "json", "progress", "recipe", "time", "help", "name"}
    assert not taken & {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


HEAD = re.compile(r"([\w -]+) \((\w[\w. ]*) (\d{4})\), (?:[\w -]+, )?https://arxiv\.org/abs/\d{4}\.\d{4,5}\.")
"""`NAME (AUTHORS YEAR), https://arxiv.org/abs/...`, with `compared with in NAME` where the paper is not there."""


@every_algorithm
def test_a_configuration_says_where_it_comes_from(cls: type) -> None:
    first, blank, *rest = inspect.getdoc(cls).splitlines()  # type: ignore[union-attr]
    head = HEAD.fullmatch(first)
    assert head, f"{cls.__name__}: {first!r} is not of the form NAME (AUTHORS YEAR), https://arxiv.org/abs/NUMBER."
    assert 1990 < int(head[3]) < 2030 and blank == ""
    assert rest[0][0].isupper() and rest[-1].endswith("."), "one sentence, or more, of what it does"


@pytest.mark.slow
@pytest.mark.parametrize("cls", [*ALGORITHMS.values(), *PARTS.values()], ids=lambda cls: cls.__name__)
def test_every_field_has_a_sentence_below_it(cls: type) -> None:
    (node,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(node, ast.ClassDef)
    for one, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and one.simple and not is_mark(cls, ast.unparse(one.target)):
            assert isinstance(after, ast.Expr), f"{cls.__name__}.{ast.unparse(one.target)} has no docstring"


def is_mark(cls: Any, name: str) -> bool:
    """Whether an annotation of the class is none of its fields: the name of an algorithm, KW_ONLY."""
    return name not in {field.name for field in dataclasses.fields(cls)}


def page(cls: Any) -> str:
    return (DOCS / PAGES.get(cls, f"algorithms/{getattr(cls, 'name', '')}.md")).read_text()


def page_of(cls: Any, field: dataclasses.Field[Any]) -> str:
    """The page that has the option: of the class itself, or of the algorithm that it inherits the field from."""
    owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
    return page(owner if owner in ALGORITHMS.values() else cls)


def option_of(cls: Any, field: dataclasses.Field[Any]) -> str:
    part = next((name for name, part in PARTS.items() if part is cls), None)
    if part:
        return f"--{part}" if field.name == "name" else f"--{part}.{field.name}"
    return "--" + field.name.replace("_", "-")


@every_algorithm
def test_a_page_names_the_paper_the_options_and_what_is_pinned(cls: Any) -> None:
    text = page(cls)
    number = re.search(r"arxiv\.org/abs/([\d.]+\d)", cls.__doc__)
    assert number and f"arxiv.org/abs/{number[1]}" in text
    headings = re.findall(r"^## (.*)", text, re.M)
    assert {"Loss", "Options", "Departures", "Pinned"} <= set(headings), headings
    assert text.startswith("# ")


@every_field
def test_a_page_has_each_option_with_its_default(cls: Any, field: dataclasses.Field[Any]) -> None:
    """A row `| --OPTION | DEFAULT | RANGE | MEANING |`; a switch that is on by default stands as `--no-OPTION`."""
    rows = dict(re.findall(r"^\| `(--[\w.-]+)[^`|]*` \| ([^|]*?) \|", page_of(cls, field), re.M))
    option = option_of(cls, field)
    if cls is Missing and field.name == "name":
        return  # the page is that of the algorithm that has all its parts
    if field.default is True:
        option = option.replace("--", "--no-", 1)
    assert option in rows, f"docs/algorithms/{cls.name}.md has no row for {option}"
    if isinstance(field.default, str):
        assert rows[option] == f"`{field.default}`"
    elif field.default is None:
        assert rows[option] == "`None`", "what it means stands in the row's last column"
    elif not isinstance(field.default, bool | tuple):
        assert float(rows[option].replace(",", "")) == field.default


KINDS = (int, float, float | None)
NUMBERS = [(cls, field) for cls, field in FIELDS if bounds(hint(cls, field))[0] in KINDS]


@pytest.mark.parametrize(("cls", "field"), NUMBERS, ids=[named(c, f) for c, f in NUMBERS])
def test_a_page_has_the_range_of_each_number(cls: Any, field: dataclasses.Field[Any]) -> None:
    """What the page says, `0..1`, `above 0` or `at least 1`, is what the field allows."""
    limits = bounds(hint(cls, field))[1]
    assert limits is not None and limits.low is not None
    expected = f"{'above' if limits.low_open else 'at least'} {limits.low:g}"
    if limits.high is not None:
        expected = f"{limits.low:g}{' to below ' if limits.high_open else '..'}{limits.high:g}"
    row = re.search(rf"^\| `{re.escape(option_of(cls, field))}` \| [^|]* \| ([^|]*?) \|", page_of(cls, field), re.M)
    assert row and row[1] == expected


@pytest.mark.parametrize("cls", [cls for cls in ALGORITHMS.values() if issubclass(cls, Composed)])
def test_a_page_leads_to_the_parts(cls: Any) -> None:
    rows = dict(re.findall(r"^\| `(--[\w.-]+)` \| `(\w+)` \|", page(cls), re.M))
    assert [rows[f"--{part}"] for part in PARTS] == [getattr(cls(), part).name for part in PARTS]
    assert "](../parts.md" in page(cls)


@every_algorithm
def test_a_page_has_no_other_options_in_its_table(cls: Any) -> None:
    table = page(cls).split("## Options")[1].split("\n## ")[0]
    known = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(cls)}
    listed = {row.replace("--no-", "--", 1) for row in re.findall(r"^\| `(--[\w-]+)", table, re.M)}
    assert listed <= known, f"docs/algorithms/{cls.name}.md lists {listed - known}"

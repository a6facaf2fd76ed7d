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
from fewlabels.algorithms import ALGORITHMS
from fewlabels.commands.train import read
from fewlabels.config.settings import Train, from_dict, to_dict
from fewlabels.runtime.checked import Range

DOCS = Path(__file__).parents[2] / "docs"
FIELDS = [(cls, field) for cls in ALGORITHMS.values() for field in dataclasses.fields(cls)]
every_algorithm = pytest.mark.parametrize("cls", ALGORITHMS.values(), ids=list(ALGORITHMS))
every_field = pytest.mark.parametrize(("cls", "field"), FIELDS, ids=[f"{c.name}.{f.name}" for c, f in FIELDS])


def hint(cls: type, field: dataclasses.Field[Any]) -> Any:
    return get_type_hints(cls, include_extras=True)[field.name]


def bounds(kind: Any) -> tuple[Any, Range | None]:
    if get_origin(kind) is Annotated:
        plain, *marks = get_args(kind)
        return plain, next(mark for mark in marks if isinstance(mark, Range))
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
        return [tuple(range(1, K + 1)), ()]
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
        config = cls(**{field.name: value})
        text = json.dumps(to_dict(Train(algorithm=config)), allow_nan=False)
        back = from_dict(json.loads(text)).algorithm
        assert back == config and type(getattr(back, field.name)) is type(getattr(config, field.name))
        assert json.loads(text)["algorithm"][field.name] == (list(value) if isinstance(value, tuple) else value)


@every_field
def test_every_field_is_checked(cls: type, field: dataclasses.Field[Any]) -> None:
    for value in refused(hint(cls, field)):
        with pytest.raises(ValueError) as caught:
            cls(**{field.name: value})
        sentence = str(caught.value)
        assert sentence.startswith(f"{cls.__name__}.{field.name} must be "), value
        assert sentence.endswith(f", got {value!r}") and "\n" not in sentence


@every_algorithm
def test_every_field_is_an_option(cls: Any) -> None:
    """All of them at once on the command line, each with two values that are not its default."""
    fields = dataclasses.fields(cls)
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


@every_algorithm
def test_no_field_is_named_like_one_of_the_training(cls: type) -> None:
    """`fewlabels train NAME --steps 3` would have two meanings."""
    taken = {field.name for field in dataclasses.fields(Train)} | {"out", "overwrite", "resume", "config", "baseline"}
    taken |= {"dry_run", "json", "progress", "recipe", "help", "name"}
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


@every_algorithm
def test_every_field_has_a_sentence_below_it(cls: type) -> None:
    (node,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(node, ast.ClassDef)
    for one, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) != "name":
            assert isinstance(after, ast.Expr), f"{cls.__name__}.{ast.unparse(one.target)} has no docstring"


def page(cls: Any) -> str:
    return (DOCS / "algorithms" / f"{cls.name}.md").read_text()


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
    rows = dict(re.findall(r"^\| `(--[\w-]+)[^`|]*` \| ([^|]*?) \|", page(cls), re.M))
    option = "--" + field.name.replace("_", "-")
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


@pytest.mark.parametrize(("cls", "field"), NUMBERS, ids=[f"{c.name}.{f.name}" for c, f in NUMBERS])
def test_a_page_has_the_range_of_each_number(cls: Any, field: dataclasses.Field[Any]) -> None:
    """What the page says, `0..1`, `above 0` or `at least 1`, is what the field allows."""
    limits = bounds(hint(cls, field))[1]
    assert limits is not None and limits.low is not None and not limits.high_open
    expected = f"{'above' if limits.low_open else 'at least'} {limits.low:g}"
    if limits.high is not None:
        expected = f"{limits.low:g}..{limits.high:g}"
    option = "--" + field.name.replace("_", "-")
    row = re.search(rf"^\| `{option}` \| [^|]* \| ([^|]*?) \|", page(cls), re.M)
    assert row and row[1] == expected


@every_algorithm
def test_a_page_has_no_other_options_in_its_table(cls: Any) -> None:
    table = page(cls).split("## Options")[1].split("\n## ")[0]
    known = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(cls)}
    listed = {row.replace("--no-", "--", 1) for row in re.findall(r"^\| `(--[\w-]+)", table, re.M)}
    assert listed <= known, f"docs/algorithms/{cls.name}.md lists {listed - known}"

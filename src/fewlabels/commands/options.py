"""Options from dataclasses, through tyro, with every complaint in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple, TextIO, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from fewlabels.commands import other_projects
from fewlabels.runtime import streams
from fewlabels.runtime.checked import Range, describe
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import close, did_you_mean, unknown

T = TypeVar("T")

_SEEN = object()


class UsageError(ValueError):
    """The command line cannot be understood."""


class _Help:
    """Takes tyro's help, which may have colours: what it breaks itself are the frames; the lines around them break
    between words here, and the usage names no list of all algorithms."""

    def __init__(self, out: TextIO) -> None:
        self.sink = streams.sink(out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)

    def write(self, text: str) -> int:
        self.sink.write("\n".join(map(self._line, text.split("\n"))))
        return len(text)

    def _line(self, line: str) -> str:
        plain, width = re.sub(r"\x1b\[[\d;]*m", "", line), shutil.get_terminal_size().columns
        if plain.startswith("usage: "):
            return streams.wrapped(re.sub(r"\[\{[\w,-]{60,}\}\]", "[ALGORITHM]", plain), width)
        return streams.wrapped(line, width) if line == plain and line[:1] not in _FRAME else line


_FRAME = ("│", "╭", "╰", "|", "+")


def parse(cls: type[T], args: list[str], *, prog: str, default: T | None = None, positional: Iterable[str] = ()) -> T:
    """The dataclass `cls` from command-line arguments.

    positional: words that may stand where no option expects a value, for suggestions. Raises UsageError, or
    SystemExit(0) after printing the help.
    """
    said, positional = io.StringIO(), list(positional)
    shown = cast(TextIO, _Help(sys.stdout))
    classes = [cls, *(_algorithms().values() if positional else ())]
    some = positional and default is not None and not any(word in ("-h", "--help") for word in args)
    registry = _registry({name for cls in classes for way in given(args, cls) for name in way} if some else None)
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said), registry:
            result: T | None
            result, unknown = tyro.cli(
                cls,
                args=last_ones(args, classes),
                prog=prog,
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_first_sentence(said.getvalue())) from None
    if unknown:
        named = next((word for word in args if word in positional), None)
        raise UsageError(_unknown(unknown[0], cls, named, default, prog, positional))
    assert result is not None
    _check_filled(args, classes)
    return result


def _check_filled(args: list[str], classes: Iterable[type]) -> None:
    """Raises UsageError for an empty word, as a variable of the shell leaves it: it would mean the default, or here."""
    words = {name: option.words for cls in classes for option in _options(cls) for name in option.names}
    for before, word in pairwise(["", *args]):
        name, equals, value = word.partition("=")
        if word and not (word.startswith("--") and equals and not value):
            continue
        option = name if word else before if before.startswith("-") and words.get(before, 1) != 0 else ""
        raise UsageError(f"{option or 'an argument'} is empty: give it a value, or leave it out")


def last_ones(args: list[str], classes: Iterable[type]) -> list[str]:
    """The arguments without the options of `classes` that a later one replaces: tyro itself takes the last one too,
    but not where an option of the algorithm stands between them."""
    known = {name: option for cls in classes for option in _options(cls) for name in option.names}
    at = [i for i, word in enumerate(args) if word.startswith("--")]
    given = [(i, known[name]) for i in at if (name := _name_in(args[i])) in known]
    newest = {option: i for i, option in given}
    gone: set[int] = set()
    for i, option in given:
        if i < newest[option]:
            after = next((j for j in at if j > i), len(args))
            count = 0 if "=" in args[i] else after - i - 1 if option.words is None else option.words
            gone |= set(range(i, i + 1 + count))
    return [word for i, word in enumerate(args) if i not in gone]


def _name_in(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def last_value(args: Sequence[str], option: str) -> str | None:
    """What the arguments say of an option that has to be known before the others can be read; None where it is not
    there or has no value, which `parse` says."""
    found = [after for word, after in pairwise([*args, "--"]) if word == option]
    found += [a.removeprefix(f"{option}=") for a in args if a.startswith(f"{option}=")]
    return found[-1] if found and not found[-1].startswith("--") else None


def given(args: Iterable[str], cls: type) -> list[tuple[str, ...]]:
    """The fields of `cls` that the arguments say, each as the names on the way to it: ``("optim", "lr")``."""
    words = set(map(_name_in, args))
    return [option.field for option in _options(cls) if words.intersection(option.names)]


def replaced(default: T, parsed: T, fields: Iterable[tuple[str, ...]]) -> T:
    """The dataclass `default` with the `fields` of `parsed`, as `given` names them."""
    inside: dict[str, list[tuple[str, ...]]] = {}
    for first, *rest in fields:
        inside.setdefault(first, []).append(tuple(rest))
    values = {
        name: getattr(parsed, name) if () in rest else replaced(getattr(default, name), getattr(parsed, name), rest)
        for name, rest in inside.items()
    }
    return dataclasses.replace(default, **values)  # type: ignore[type-var]


def _registry(named: set[str] | None) -> ConstructorRegistry:
    """What tyro makes of dataclasses; of all their fields, or only of those that are `named`.

    tyro takes milliseconds for each field, and a training has over a hundred. Where all have a default and no help is
    asked for, those that the arguments do not name keep it.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if _SEEN in info.markers or not (isinstance(info.type, type) and dataclasses.is_dataclass(info.type)):
            return None
        spec = ConstructorRegistry.get_struct_spec(dataclasses.replace(info, markers=(*info.markers, _SEEN)))
        assert isinstance(spec, StructConstructorSpec)
        if named is None:
            return dataclasses.replace(spec, fields=tuple(map(_with_help, spec.fields)))
        make = partial(dataclasses.replace, info.default) if isinstance(info.default, info.type) else spec.instantiate
        kept = [field for field in spec.fields if field.name in named | _WITH_SUBCOMMANDS]
        return StructConstructorSpec(make, tuple(dataclasses.replace(field, helptext="") for field in kept))

    return registry


_WITH_SUBCOMMANDS = {"train", "algorithm"}
"""Fields on the way to the choice of an algorithm, which arguments name without an option."""


def _with_help(field: StructFieldSpec) -> StructFieldSpec:
    """With what its `Range` allows after its sentence, whose lines are those of the source: joined here, as tyro breaks
    them anew."""
    sentence: str | Callable[[], str | None] | None = field.helptext
    allowed = describe(field.type) if _has_range(field.type) else ""

    def text() -> str:
        before = sentence() if callable(sentence) else sentence
        words = [before or "", f"{allowed[0].upper()}{allowed[1:]}." if allowed else ""]
        return " ".join(" ".join(words).split())

    return dataclasses.replace(field, helptext=text)


def _has_range(hint: object) -> bool:
    return isinstance(hint, Range) or any(map(_has_range, get_args(hint)))


def _algorithms() -> Mapping[str, type]:
    from fewlabels.algorithms import ALGORITHMS  # heavy, and needed for a training only

    return ALGORITHMS


def _unknown(word: str, cls: type, named: str | None, default: object, prog: str, positional: list[str]) -> str:
    command = prog.removeprefix("fewlabels ")
    if word in positional:
        return f"{command} takes one algorithm, and {word!r} is a second one"
    if not word.startswith("-"):
        kind = "algorithm" if positional else "argument"
        if positional and _is_data(word):
            return f"{command} has no algorithm {word!r}; data are named with --data {word}"
        if positional and _NUMBER.fullmatch(word):
            return f"{command} has no option that {word} is a further value of; several seeds are one word, 0..4 or 0,2"
        return f"{command} has no {kind} {unknown(word, positional)}"
    given = word.partition("=")[0]
    option = given.replace("_", "-")
    others = {name: options(algorithm) for name, algorithm in _algorithms().items() if positional}
    if having := [name for name, theirs in others.items() if option in theirs]:
        names = " and ".join([", ".join(having[:-1]), having[-1]] if having[1:] else having)
        return f"{option} is an option of {names}, not of the algorithm that is trained here"
    if ours := other_projects.usual(command, option):
        return f"{command} has no option {given}; {ours}"
    if (hint := other_projects.hint(word)) and f" is {option} here" not in hint:
        return f"{command} has no option {given}; {hint if positional else hint.replace('--data.', '--')}"
    trained = getattr(getattr(default, "train", None), "algorithm", None)
    algorithm = _algorithms().get(named or "", type(trained))
    own = [*options(cls), *(options(algorithm) if dataclasses.is_dataclass(algorithm) else [])]
    for known_here in (own, [name for theirs in others.values() for name in theirs]):
        if near := close(option.lstrip("-"), [name.lstrip("-") for name in known_here]):
            return f"{command} has no option {given}{did_you_mean(f'--{name}' for name in near)}"
    return f"{command} has no option {given}"


_NUMBER = re.compile(r"[+-]?\d[\d.,e+-]*")


def _is_data(word: str) -> bool:
    """Whether a word that is no algorithm is what --data takes: a folder or table, or the name of a set."""
    from fewlabels.data.names import parse

    try:
        name = parse(word)
    except ValueError:
        return False
    return not name.folder or expanded(word).exists() or word.endswith("/")


def options(cls: type) -> list[str]:
    """The options that tyro makes of a dataclass (not those of a union's members)."""
    return [name for option in _options(cls) for name in option.names]


def flags(cls: type) -> dict[str, int | None]:
    """How many words follow each option of a dataclass, by its name, a switch's that turns it on; None: any number."""
    return {option.names[0]: option.words for option in _options(cls)}


class _Option(NamedTuple):
    names: tuple[str, ...]
    """A switch has two."""
    words: int | None
    """How many words follow it; None: any number."""
    field: tuple[str, ...]
    """Names of the fields on the way to its own."""


@cache
def _options(cls: type) -> tuple[_Option, ...]:
    return tuple(_options_in(cls, "", ()))


def _options_in(cls: type, prefix: str, way: tuple[str, ...]) -> Iterator[_Option]:
    hints = get_type_hints(cls, include_extras=True)
    for f in dataclasses.fields(cls):
        hint, field = hints[f.name], (*way, f.name)
        marks = getattr(hint, "__metadata__", ())
        unnamed = any(getattr(mark, "name", None) == "" for mark in marks)
        plain = get_args(hint)[0] if marks else hint
        told = next((name for mark in marks if isinstance(name := getattr(mark, "name", None), str) and name), f.name)
        name = told.replace("_", "-")
        option = f"--{prefix.rstrip('.')}" if unnamed else f"--{prefix}{name}"
        if dataclasses.is_dataclass(plain):
            yield from _options_in(cast(type, plain), prefix if unnamed else f"{prefix}{name}.", field)
        elif plain is bool:
            yield _Option((option, f"--{prefix}no-{name}"), 0, field)
        else:
            own = any(isinstance(mark, PrimitiveConstructorSpec) for mark in marks)
            yield _Option((option,), None if get_origin(plain) is tuple and not own else 1, field)


def spelled(sentence: str, command: str) -> str:
    """`sentence` with the options of `command` in place of our fields: ``Train.steps`` is ``--steps`` of train.

    For the command "" they are written as in a file of settings: ``optim.lr_end``.
    """
    from fewlabels.config.settings import Data, Ema, Net, Optim, Train
    from fewlabels.sweep.generations import Generations
    from fewlabels.sweep.on import On

    if command in ("split", "data"):
        groups: dict[str, tuple[type, str]] = {"Data": (Data, "")}
    elif command == "predict":
        groups = {"On": (On, "on.")}
    elif command in ("train", ""):
        parts = {cls.__name__: (cls, f"{cls.__name__.lower()}.") for cls in (Data, Net, Optim, Ema, On, Generations)}
        algorithms = {cls.__name__: (cls, "" if command else "algorithm.") for cls in _algorithms().values()}
        groups = {"Train": (Train, ""), **parts, **algorithms}
    else:
        return sentence

    def option(match: re.Match[str]) -> str:
        cls, prefix = groups.get(match[1], (None, ""))
        if cls is None or match[2] not in {f.name for f in dataclasses.fields(cls)}:
            return match[0]
        name = f"{prefix}{match[2]}"
        main = ".name" if cls is not Generations else ".count"
        return f"--{name.removesuffix(main).replace('_', '-')}" if command else name

    return re.sub(r"(?<![\w/.'\"-])([A-Z]\w*)\.([a-z]\w*)(?![\w/'\"]|\.\w)", option, sentence)


def _first_sentence(box: str) -> str:
    """What tyro says in its frame, without frame, title and the help that follows, in our words."""
    framed = box.startswith("╭")  # tyro draws frames with lines, or in ASCII with a ruler under the title
    lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in ("╭", "╰")]
    text: list[str] = []
    for line in lines if framed else lines[2:]:
        if line and set(line) <= {"─", "-"}:
            break
        text.append(line)
    sentence = " ".join(" ".join(text).split())
    for pattern, ours in _REPHRASED:
        sentence = re.sub(pattern, ours, sentence)
    return sentence or "the command line cannot be understood"


_REPHRASED = (
    # our own checks name class and field already
    (r"^Error parsing [\w.]+: (?=[A-Z]\w*\.)", ""),
    (r"^Command\.(\w+) must", r"--\1 must"),
    (r"^Error parsing (\S+): .*\bint\b.*: ('.*')$", r"\1 must be a whole number, got \2"),
    (r"^Error parsing (\S+): .*\bfloat\b.*: ('.*')$", r"\1 must be a number, got \2"),
    (r"^Missing from fewlabels (.*?): (\S+) (.*?)\.? \(required\)", r"\1 needs \2: \3"),
    (r"^Missing value for argument '(\S+)'.*", r"\1 needs a value"),
    (r"^Cannot select subcommand '(\S+)' .* used the flag '(\S+)'\..*", r"name the algorithm first: \1 before \2"),
    (r"^The subcommand '(\S+)' was already .* the flag '(\S+)'\..*", r"name the algorithm first: \1 before \2"),
    (r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*?),?\)\.$", r"\2 must be one of \3, got \1"),
)
"""tyro's sentences, and ours: thing, what is allowed, what was given."""

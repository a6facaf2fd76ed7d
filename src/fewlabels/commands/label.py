"""fewlabels label"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from fewlabels.commands import label_first, label_page
from fewlabels.commands.options import UsageError, parse
from fewlabels.config.resolve import load_source
from fewlabels.data.answers import called, shown, with_answers
from fewlabels.data.resized import taken
from fewlabels.data.source import Labels, Source
from fewlabels.data.splitfile import as_json
from fewlabels.datatools.probe import run_in
from fewlabels.inference import choosing, suspects
from fewlabels.inference.criteria import outputs, without_label
from fewlabels.inference.model import load_predictor
from fewlabels.report import tasks
from fewlabels.report.tasks import Question
from fewlabels.runs.run import Run
from fewlabels.runtime import files
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.regular import expanded, real
from fewlabels.training.log import bar

By = Literal["margin", "entropy", "k-centre", "typical", "disagreement"]

COUNT = 50
"""Pictures that are asked about, where no number was given."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Choose the pictures that a person should label next, and take the answers.

    `label RUN -o FOLDER` asks about unlabeled pictures of a run, `label RUN --page` on a page of this machine, and
    `label RUN --answers FILE` makes a split of the answers. `label PHOTOS/ --first 40 -o FOLDER` asks before any
    training, and `label RUN --suspects` lists labels that are likely wrong.
    """

    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...|PHOTOS/")]
    """Run folder, several of them for `--by disagreement`, or a folder of pictures."""
    n: Annotated[int | None, tyro.conf.arg(aliases=("-n",))] = None
    """Pictures to ask about; default: 50, and with --suspects all that there are."""
    by: By | None = None
    """What makes a picture useful: a small `margin` between its two most probable classes, the `entropy` of its
    probabilities, its distance from all labeled ones (`k-centre`), a dense place far from labels (`typical`), or
    `disagreement` of several runs; default: margin, of several runs disagreement."""
    out: Annotated[str | None, tyro.conf.arg(aliases=("-o", "--output"))] = None
    """New folder for the questions; with --answers the new split file (default: beside the answers), or for a folder
    of pictures the new table."""
    answers: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """CSV file with the columns path and label, or Label Studio's JSON export."""
    first: int | None = None
    """For a folder of pictures: choose so many before any training."""
    suspects: bool = False
    """List labeled pictures whose label is likely wrong."""
    page: bool = False
    """Show the questions on a page of this machine, to answer them by keyboard; -o may name questions that are there,
    default: RUN-label beside the run."""
    port: Annotated[int, tyro.conf.arg(metavar="0..65535")] = 0
    """Of the page; 0 takes a free one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    progress: bool = True
    """Show a progress bar."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels label")
    if not command.paths:
        raise UsageError("label needs a run folder, or a folder of pictures with --first N")
    _check(command)
    runs = [run for path in command.paths if (run := run_in(path, expanded(path))) is not None]
    if len(runs) < len(command.paths):
        return _folder(command)
    if command.first is not None:
        raise UsageError(f"--first is for a folder of pictures before any training, and {runs[0].path} is a run")
    if command.answers is not None:
        return _answers(command, runs[0], command.answers)
    if command.page:
        return _page(command, runs)
    return _suspects(command, runs[0]) if command.suspects else _choose(command, runs)


def _check(command: Command) -> None:
    """Raises UsageError for options that do not go together, and for an output that is there."""
    given = {"--first": command.first, "--answers": command.answers, "--suspects": command.suspects or None}
    several = [option for option, value in given.items() if value is not None]
    if len(several) > 1:
        raise UsageError(f"{several[0]} and {several[1]} are two things to do: give one of them")
    for option, value in (("-n", command.n), ("--by", command.by)):
        if value is not None and several and (option, several) != ("-n", ["--suspects"]):
            raise UsageError(f"{option} does not go with {several[0]}")
    for option, number in (("-n", command.n), ("--first", command.first)):
        if number is not None and number < 1:
            raise UsageError(f"{option} must be at least 1, got {number}")
    if len(command.paths) > 1 and (several or command.by not in (None, "disagreement")):
        raise UsageError(f"{several[0] if several else f'--by {command.by}'} is for one run, got {len(command.paths)}")
    if command.by == "disagreement" and len(command.paths) < 2:
        raise UsageError("--by disagreement needs several runs: fewlabels label RUN RUN2 -o FOLDER")
    if command.page and (command.answers is not None or command.first is not None):
        raise UsageError("--page asks about pictures of a run: leave out --answers and --first")
    if not 0 <= command.port < 2**16 or (command.port and not command.page):
        raise UsageError(f"--port is a number from 0 to 65535, for --page, got {command.port}")
    if command.answers is None and not command.suspects and not command.page and command.out is None:
        raise UsageError("label writes a folder of questions: name it with -o FOLDER")
    out = expanded(command.out) if command.out is not None else None
    if out is not None and out.exists() and not (command.page and out.is_dir()):
        raise UsageError(f"{out} exists; name another one")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} to")


def _page(command: Command, runs: Sequence[Run]) -> int:
    """Questions on a page, those of a folder that is there or new ones."""
    run = runs[0]
    folder = expanded(command.out) if command.out is not None else Path(f"{real(run.path)}-label")
    if folder.exists():
        if command.n is not None or command.by is not None or command.suspects:
            what = "leave out -n, --by and --suspects, or name another folder with -o"
            raise UsageError(f"{folder} has its questions: {what}")
    else:
        command = replace(command, out=str(folder))
        status = _suspects(command, run) if command.suspects else _choose(command, runs)
        if status or not folder.exists():
            return status
    return label_page.serve(run, folder, _source(run), command.port)


def _folder(command: Command) -> int:
    """Pictures without a run."""
    path = expanded(next(p for p in command.paths if run_in(p, expanded(p)) is None))
    if not path.is_dir():
        raise UsageError(f"{path} is no run and no folder of pictures")
    if len(command.paths) > 1 or (command.first is None and command.answers is None):
        raise UsageError(f"{path} is no run; of a folder of pictures --first N chooses the first ones to label")
    if command.out is None:
        raise UsageError(f"a folder of pictures has no split: name the table to write with -o {path.name}.csv")
    if command.answers is not None:
        print(label_first.table_of(path, command.answers, expanded(command.out)))
        return 0
    assert command.first is not None
    device = pick_device(command.device)
    with bar("looking at pictures", command.progress) as show:
        done = label_first.choose(path, command.first, expanded(command.out), device=device, progress=show)
    for note in done.notes:
        print(note, file=sys.stderr)
    print(f"wrote {command.out}: {command.first} of {done.pictures} pictures, one of each cluster of {done.features}")
    return 1 if done.corrupt else 0


def _source(run: Run) -> Source:
    """The pictures of a run, as it saw them. Raises ValueError where they are others now."""
    source = load_source(run.config.data, size=tuple(run.data["shape"][1:]))
    run.split.check_fit(source)
    return source


def _answers(command: Command, run: Run, answers: str) -> int:
    file = expanded(answers)
    out = expanded(command.out) if command.out is not None else file.with_name(f"{file.stem}.split.json")
    if out.exists():
        raise UsageError(f"{out} exists; name another file with -o")
    source = _source(run)
    split, counts = with_answers(run.split, source, answers)
    files.write_json(out, as_json(split, source))
    print(f"wrote {out}: {counts}; {len(np.unique(split.labeled))} pictures have a label now")
    print(f"fingerprint {split.fingerprint}")
    print(f"next: fewlabels train --data.split {quote(str(out))} --from {quote(str(run.path))}")
    return 0


def _choose(command: Command, runs: Sequence[Run]) -> int:
    by: By = command.by or ("disagreement" if len(runs) > 1 else "margin")
    count = COUNT if command.n is None else command.n
    _check_same(runs)
    split = runs[0].split
    free = without_label(split.labeled, split.unlabeled, most=len(split.unlabeled))
    rows = without_label(split.labeled, split.unlabeled)
    if len(rows) < count:
        raise ValueError(f"-n {count}: {runs[0].path} has {len(rows)} pictures without a label")
    device = pick_device(command.device)
    votes = []
    with bar("looking at pictures", command.progress) as show:
        for i, run in reversed(list(enumerate(runs))):  # so that what is left are the first run's
            source, model = _source(run), load_predictor(run, device=device)
            labeled = np.unique(split.labeled)
            features, logits = outputs(model, source.images, np.append(rows, labeled))
            votes.append(logits[: len(rows)].argmax(1).numpy())
            show(len(runs) - i, len(runs))
    probabilities = logits[: len(rows)].double().softmax(1).numpy()
    x = features.double().numpy()
    if not (np.isfinite(x).all() and np.isfinite(probabilities).all()):
        raise ValueError(f"{runs[0].path}: what the net says of some pictures are no finite numbers")
    seen, known = x[: len(rows)], x[len(rows) :]
    if by == "margin":
        chosen = choosing.by_margin(probabilities, count)
    elif by == "entropy":
        chosen = choosing.by_entropy(probabilities, count)
    elif by == "k-centre":
        chosen = choosing.k_centre(seen, known, count)
    elif by == "typical":
        chosen = choosing.typical(seen, known, count)
    else:
        chosen = choosing.by_votes(np.stack(votes), len(source.classes), count)
    sure = probabilities[chosen].max(1)
    guess = probabilities[chosen].argmax(1)
    if len(rows) < len(free):
        print(f"note: looked at {len(rows)} of {len(free)} pictures without a label, evenly spaced", file=sys.stderr)
    _write(command.out or "", source, rows[chosen], guess, sure, f"{count} unlabeled pictures by {by}")
    print(f"wrote {command.out}: {count} of {len(free)} pictures without a label, by {by}")
    table = quote(f"{command.out}/{tasks.TABLE}")
    print(f"next: fill the column label, then fewlabels label {quote(str(runs[0].path))} --answers {table}")
    return 0


def _check_same(runs: Sequence[Run]) -> None:
    """Raises ValueError where several runs were not trained on the same pictures and classes."""
    first = runs[0]
    for run in runs[1:]:
        own, theirs = ((r.split.source, r.split.pictures, r.data["classes"]) for r in (first, run))
        if own != theirs:
            raise ValueError(f"{first.path} and {run.path} are of different pictures or classes: nothing to compare")


def _suspects(command: Command, run: Run) -> int:
    split = run.split
    rows, at = np.unique(split.labeled, return_index=True)
    asked = ~np.isin(rows, split.validation)  # whose labels stay
    rows, y = rows[asked], split.targets[at[asked]]
    source = _source(run)
    suspects.check_counts(np.bincount(y, minlength=len(source.classes)), source.classes)
    features, _ = outputs(load_predictor(run, device=pick_device(command.device)), source.images, rows)
    probabilities = suspects.out_of_fold(features, y, len(source.classes))
    places, wanted = suspects.suspects(probabilities, y)
    places, wanted = places[: command.n], wanted[: command.n]
    for place, other in zip(places.tolist(), wanted.tolist(), strict=True):
        name, label = shown(called(source, int(rows[place]))), shown(source.classes[y[place]])
        print(f"{name}: labeled {label}, perhaps {shown(source.classes[other])} ({probabilities[place, other]:.2f})")
    print(f"{len(places)} of {len(rows)} labels are suspect: none of them is proven wrong, look at the pictures")
    if command.out is not None and len(places):
        sure = probabilities[places, wanted]
        title = f"{len(places)} pictures whose label may be wrong"
        _write(command.out, source, rows[places], wanted, sure, title, y[places])
        print(f"wrote {command.out}")
    return 0


def _write(
    out: str, source: Source, rows: Labels, guess: Labels, sure: Any, title: str, given: Labels | None = None
) -> None:
    """The folder of questions about the pictures at `rows`, which are taken for the classes `guess`."""
    questions = [
        Question(
            called(source, row),
            source.files[row] if source.files else "",
            source.classes[guess[i]],
            float(sure[i]),
            "" if given is None else source.classes[given[i]],
        )
        for i, row in enumerate(rows.tolist())
    ]
    tasks.write(Path(expanded(out)), questions, taken(source.images, rows), source.classes, title)

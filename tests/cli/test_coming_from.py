"""docs/coming-from.md: every option of the five projects has a row, every training command of theirs a translation."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import options_table
from fewlabels import nets
from fewlabels.algorithms import ALGORITHMS
from fewlabels.commands import evaluate, predict, split, train
from fewlabels.commands.data import COMMANDS
from fewlabels.commands.options import options
from fewlabels.commands.other_projects import _usual, hint, projects, usual
from fewlabels.config import settings as config

pytestmark = pytest.mark.usefixtures("unmeasured")

DOCUMENT = Path(__file__).parents[2] / "docs" / "coming-from.md"

# The names of all flags.DEFINE_* and add_argument in the repositories (google-research/fixmatch d4985a1,
# CADR-FixMatch 1fc232d, kekmodel 040be3b, LeeDoYup f167d64, realmix 36dada5), copied by hand. Of CADR-FixMatch those
# that google-research/fixmatch has not; of imagenet/ also the keys of its --hparams.
EVERY = {
    "google-research/fixmatch": """K T adecay adepth anchoring arch ath augment batch beta beta1 beta2 confidence
        consistency_weight data_dir dataset dropout ema entmin_weight eval_ckpt filters keep_ckpt
        log_device_placement lr lr_end momentum nesterov p_unlabeled para_augment para_parse redux repeat report_kimg
        rerun samples save_kimg scales seed shuffle size smoothing temperature threshold train_dir train_kimg tsa
        tsa_pos uratio use_dm use_xe vat vat_eps w_kl w_match w_rot warmup_kimg warmup_pos wd we whiten wu""",
    "google-research/fixmatch, imagenet": """dataset fail_on_missing_examples hparams imagenet_data input_dir
        max_records_to_process num_shards output_file_prefix per_worker_batch_size per_worker_eval_batch_size
        save_summaries_with_epoch sharding_file model_dir steps_per_run tpu uratio fixmatch.wu fixmatch.confidence
        bfloat16 num_epochs use_ema ema_decay weight_decay input.saturate_uint8 input.scale_and_center
        input.use_default_augment learning_rate.base_lr learning_rate.use_warmup learning_rate.warmup_epochs
        learning_rate.decay_rate learning_rate.decay_epochs augment.type augment.use_ema_probe_image
        augment.randaugment_num_layers augment.randaugment_magnitude augment.randaugment_prob_to_apply
        augment.cta_num_layers augment.cta_confidence_threshold augment.cta_decay augment.cta_epsilon
        augment.cta_prob_to_apply augment.cta_num_levels""",
    "JoyHuYY1412/CADR-FixMatch": "CADR CAI CAI_beta CAP CAP_EMA CAP_EMA_momentum devicenum lamda upper",
    "kekmodel/FixMatch-pytorch": """gpu-id num-workers dataset num-labeled expand-labels arch total-steps eval-step
        start-epoch batch-size lr learning-rate warmup wdecay nesterov use-ema ema-decay mu lambda-u T threshold out
        resume seed amp opt_level local_rank no-progress nproc_per_node""",
    "LeeDoYup/FixMatch-pytorch": """save_dir save_name resume load_path overwrite epoch num_train_iter num_eval_iter
        num_labels batch_size uratio eval_batch_size hard_label T p_cutoff ema_m ulb_loss_ratio lr momentum
        weight_decay amp net net_from_name depth widen_factor leaky_slope dropout data_dir dataset train_sampler
        num_classes num_workers world-size rank dist-url dist_url dist-backend seed gpu multiprocessing-distributed
        use_train_model""",
    "uizard-technologies/realmix": """aug_copy aug_dataset class_filter filter_dataset json path save_name save_path
        tfrecord unlabel_size arch augment batch beta class_balance class_mapping consistency_weight custom
        custom_dataset dataset ema entmin_weight epochs eval_ckpt filters img_size inference_ckpt inference_dir
        keep_ckpt label_size label_split_size load_checkpoint log_device_placement lr memoize nclass nu p_unlabeled
        para_augment para_parse percent_mask perform_inference repeat report_kimg samples save_kimg scales seed
        shuffle smoothing test_record threshold train_dir train_kimg train_record tsa valid_size vat vat_eps w_match
        warmup_pos wd whiten cutout cutout_prob dimension filetype force index load name prediction_balance
        pseudolabel save savedir targetdir train_balance testdir traindir unlabel_balance unlabeldir""",
}


def tables(heading: str) -> list[list[str]]:
    """Cells of every row of the document below a header that begins like `heading`, and the section before them."""
    rows, section, reading = [], "", False
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if not line.startswith("|"):
            reading = False
        elif line.startswith(f"| {heading}"):
            reading = True
        elif reading and not line.startswith(("|---", "| ---")):
            rows.append([section, *(cell.strip() for cell in line.strip("| ").split("|"))])
    return rows


TRAININGS = [(there.strip("`"), here.strip("`")) for _, there, here in tables("command there")]
RUNNABLE = [(there, here) for there, here in TRAININGS if here != "not yet"]


def test_every_flag_has_a_row() -> None:
    assert {p: sorted(f.name for f in flags) for p, flags in projects().items()} == {
        p: sorted(names.split()) for p, names in EVERY.items()
    }
    assert all(flag.ours or flag.remark for flags in projects().values() for flag in flags)


def test_document_and_command_line_have_the_same_tables() -> None:
    shown = [[s, *(c.strip("`") for c in ([*cells, "", ""])[:3])] for s, *cells in tables("option there")]
    assert shown == [[p, f.name, f.ours, f.remark] for p, flags in projects().items() for f in flags]


def test_the_document_is_what_the_file_renders_to() -> None:
    text = DOCUMENT.read_text()
    assert re.findall("<!-- options (.+) -->", text) == list(projects())
    assert text == options_table.render(text), "run python benchmarks/options_table.py"


def test_what_is_named_exists() -> None:
    """Each of our options in the tables is one of a command of ours."""
    commands = (train.Command, evaluate.Command, predict.Command, split.Command, *(cls for cls, _ in COMMANDS.values()))
    known = {option for cls in (*commands, *ALGORITHMS.values()) for option in options(cls)}
    launcher = {"--nproc-per-node", "--nnodes", "--master-addr", "--master-port", "--node-rank"}
    for flags in projects().values():
        for flag in flags:
            named = re.findall(r"--[a-z][\w.-]*", f"{flag.ours} {flag.remark}".replace("--noNAME", ""))
            assert {word.rstrip(".") for word in named} <= known | launcher, flag


WORDS = [(command, name) for command, name in _usual()]


@pytest.mark.slow
def test_words_of_many_programs(command: Callable[..., Any]) -> None:
    """Those of ultralytics, timm and Keras: one sentence each, of options that exist."""
    own = {"train": train.Command, "predict": predict.Command, "evaluate": evaluate.Command}
    algorithms = {option for cls in ALGORITHMS.values() for option in options(cls)}
    elsewhere = {"--nproc-per-node", "--logdir", "--smoothing"}
    for name, word in WORDS:
        assert f"--{word}" not in options(own[name]) and (name != "train" or f"--{word}" not in algorithms)
        sentence = usual(name, f"--{word.replace('-', '_')}=7")
        assert sentence is not None and "\n" not in sentence
        named = {option.rstrip(".") for option in re.findall(r"--[a-z][\w.-]*", sentence)}
        assert named <= {*options(own[name]), *elsewhere, "--checkpoint"}, (word, named)
    for word in ("--imgsz", "--model", "--batch-size", "--lr", "--weights", "--epochs", "--batch_size=8"):
        said = command("train", *([word] if "=" in word else [word, "8"]))
        name = word.partition("=")[0]
        assert said.code == 2
        assert said.sentence == f"train has no option {name}; {usual('train', word)}"
    assert command("predict", "run", "--source", "x").sentence == (
        "predict has no option --source; the pictures follow the run: fewlabels predict RUN PATH..."
    )
    assert usual("report", "--imgsz") is None and usual("train", "--xyzzy") is None


def mask(name: str) -> str:
    return name.replace("-", "_").lower()


def test_every_flag_has_a_hint() -> None:
    """Of the project itself, or of one that has the same flag and comes before it."""
    for flags in projects().values():
        for flag in flags:
            sentence = hint(f"--{flag.name}")
            assert sentence is not None and sentence.startswith(f"--{flag.name} of ") and "\n" not in sentence
            same = next(f for others in projects().values() for f in others if f.name == flag.name)
            assert (f" is {same.ours} here" if same.ours else " has no counterpart: ") in sentence
            assert sentence.endswith(same.remark)
    for word in ("--stps", "mu", "-", "--"):
        assert hint(word) is None


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--mu=7", "train has no option --mu; --mu of kekmodel/FixMatch-pytorch is --uratio here"),
        ("--p-cutoff", "train has no option --p-cutoff; --p_cutoff of LeeDoYup/FixMatch-pytorch is --tau here"),
        ("--nowhiten", "train has no option --nowhiten; --whiten of google-research/fixmatch and others is "
         "--data.normalize measured here: does not run there"),
        (
            "--expand-labels",
            "train has no option --expand-labels; --expand-labels of kekmodel/FixMatch-pytorch has no counterpart: "
            "labels are drawn without end, so that nothing has to be repeated; it never makes pseudo-labels",
        ),
    ],
)  # fmt: skip
def test_hints(command: Callable[..., Any], word: str, sentence: str) -> None:
    assert command("train", word).sentence == sentence


# ---- the training commands


@pytest.fixture
def small_nets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A tiny net in place of each; the real one is made without memory, and its parameters are counted."""
    counts: list[int] = []
    build = nets.build

    def tiny(name: str, *, classes: int, shape: tuple[int, int, int], **options: Any) -> nn.Module:
        real: Any = None
        if ":" in name:
            real = build(name, classes=classes, shape=shape, **options)
        else:
            with torch.device("meta"):
                real = build(name, classes=classes, shape=shape, **options)
        counts.append(sum(p.numel() for p in real.parameters()))
        return build("small-2", classes=classes, shape=shape)

    monkeypatch.setattr(config.nets, "build", tiny)
    return counts


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the own pictures that the commands speak of; a dry run writes nothing."""
    root = tmp_path_factory.mktemp("own")
    for folder in ("data", "mydataset"):
        for part in ("labeled/cat", "labeled/dog", "unlabeled", "test/cat"):
            for i in range(2 if part == "test/cat" else 60):  # 50 of the labeled ones are for validation
                path = root / folder / part / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (36, 32), (i, 9, 99)).save(path)
    return root


@pytest.fixture
def place(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)


def flags_of(there: str) -> dict[str, str]:
    """What a command of theirs says, by name of the flag."""
    out: dict[str, str] = {}
    words = there.split()
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            name, _, value = word.lstrip("-").partition("=")
            out[mask(name)] = value or ("" if after.startswith("--") else after)
    return out


def words_of(here: str) -> list[str]:
    """The arguments of fewlabels, without torchrun and variables."""
    words = shlex.split(here)
    return words[words.index("fewlabels") + 1 :]


def dry_run(command: Callable[..., Any], here: str) -> dict[str, Any]:
    said = command(*words_of(here), "--dry-run", "--json")
    assert said.code == 0, said.err
    assert said.err == "", "the authors' own net needs no hint"
    found: dict[str, Any] = json.loads(said.out)["train"]
    return found


ONCE = {" ".join(words_of(here)): (there, here) for there, here in reversed(RUNNABLE)}
"""Several of their commands differ in the launcher only."""

# parameters of the nets, from the specification of each project's code
PARAMETERS = {
    ("32", 10): 1_469_642, ("128", 100): 23_409_092, ("135", 10): 25_985_290, ("135", 100): 26_033_980,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("there", "here"), ONCE.values(), ids=[there for there, _ in ONCE.values()])
def test_training_command(there: str, here: str, command: Callable[..., Any], small_nets: list[int]) -> None:
    found, said = dry_run(command, here), flags_of(there)
    data, net, optim = found["data"], found["net"], found["optim"]
    classes = 100 if "100" in data["name"].split("_")[0].split(".")[0] or "mini" in data["name"] else 10
    if "dataset" in said and "mydataset" not in said["dataset"] and "fixmatch.py" in there and "imagenet" not in there:
        assert data["name"] == said["dataset"].replace("cifar50_", "cifar100_")
        algorithm = "cadr" if "cadr" in said else "fixmatch"
        assert (found["algorithm"]["name"], found["strong"], found["uratio"]) == (algorithm, "cta", 7)
        cadr = "_LT_" in data["name"] or said["dataset"] == "cifar10.1@40-1"
        assert found["steps"] == (131_072 if cadr else 1_048_576)  # 2^13 and 2^16 kimg
    if "imagenet_data" in there:
        epochs, labels = (3000, 128_116) if "fixmatch.py" in there else (200, 1_281_167)
        assert found["steps"] == -(-epochs * labels // found["batch"]) and optim["lr"] == 0.1 * found["batch"] / 256
        assert (data["crop"], data["fit"], optim["schedule"]) == ("area-flip", "inner", "stairs")
    if "fs_" in there:
        algorithm = "supervised" if "fs_baseline" in there else "supervised-mixup"
        assert found["algorithm"]["name"] == algorithm
        assert (optim["name"], optim["lr"], optim["schedule"]) == ("adamw", 0.002, "constant")
        assert found["algorithm"].get("smoothing", 0) == float(said.get("smoothing", 0))
    if ".py --filters" in there or "fs_" in there:
        if "stl10" in data["name"]:
            assert said["scales"] == "4" and small_nets[0] == 5_933_770
        elif said.get("filters") == "64":
            assert small_nets[0] == 11_230_948  # res18
        elif "mydataset" not in there and (said.get("filters", "32"), classes) in PARAMETERS:
            assert small_nets[0] == PARAMETERS[said.get("filters", "32"), classes]
    for flag, option in (("wd", "weight_decay"), ("wdecay", "weight_decay"), ("weight_decay", "weight_decay")):
        if flag in said:
            assert optim[option] == float(said[flag])
    if "lr" in said:
        assert optim["lr"] == float(said["lr"])
    if "num_labeled" in said and said["dataset"] != "mstar":
        assert data["labels"] == int(said["num_labeled"]) and data["rule"] == "balanced"
        assert found["seed"] == data["seed"] == int(said.get("seed", 1))
    if "expand_labels" in said or "batch_size" in said:
        assert found["batch"] == int(said["batch_size"]) * int(said.get("nproc_per_node", 1))
        assert small_nets[0] == {10: 1_467_610, 100: 23_401_012}.get(classes) or "mstar" in there
    if "num_labels" in said:
        assert data["labels"] == {"4000": 4000, "10000": 10000, "50000": None}[said["num_labels"]]
        assert data["rule"] == "balanced" and data["seed"] == 0 and found["strong"] == "rand:leedoyup"
        assert small_nets[0] == (23_401_012 if said.get("widen_factor") == "8" else 1_467_610)
    if "mydataset" in there:
        assert (data["valid"], data["image_size"]) == (50, int(said["img_size"]))
    if "hard_label" in said:
        assert (found["algorithm"]["target"], found["algorithm"]["temperature"]) == ("soft", 0.5)
    if "leaky_slope" in said:
        assert net["slope"] == 0
    if "net_from_name" in said:
        assert small_nets[0] == 11_181_642  # torchvision's ResNet-18 without its head of 513,000, with one for 10


def test_every_training_command_is_there() -> None:
    """19 commands in run.sh of CADR-FixMatch, 9 in all.sh, 3 for ImageNet; none is left out."""
    assert len(TRAININGS) == len(set(TRAININGS)) == len(RUNNABLE) == 55


@pytest.mark.slow
@pytest.mark.parametrize("here", [here for _, _, here in tables("script in")])
def test_ablation(here: str, command: Callable[..., Any], small_nets: list[int]) -> None:
    for part in re.findall("`(.*?)`", here):
        dry_run(command, f"fewlabels train --recipe google-fixmatch-cifar10 {part}")  # the last --recipe counts

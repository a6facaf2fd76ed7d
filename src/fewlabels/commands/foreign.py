# ruff: noqa: E501  (rows of a table)
"""The options of five published programs in our words: for the hint that one of them gets on our command line.

docs/coming-from.md prints the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Flag(NamedTuple):
    """A row of a table."""

    name: str
    """As it is written there, without dashes."""
    ours: str
    """What does the same here; empty if nothing has to."""
    remark: str


def _table(text: str) -> tuple[Flag, ...]:
    return tuple(Flag(*(cell.strip() for cell in line.split("|"))) for line in text.strip().splitlines())


PROJECTS: Mapping[str, tuple[Flag, ...]] = {
    "google-research/fixmatch": _table("""
        dataset            | --data | the same names, such as cifar10.3@250-1, with any seed and size
        data_dir           | --data.root | or the environment variable ML_DATA, as there
        train_dir          | --out | the run folder itself
        train_kimg         | --steps | 1024 * train_kimg / batch
        report_kimg        | --eval-every | 1024 * report_kimg / batch
        save_kimg          | --save-every | 1024 * save_kimg / batch
        keep_ckpt          | --keep |
        eval_ckpt          | fewlabels evaluate RUN --checkpoint STEP | a command of its own
        rerun              | --out | another run folder
        batch              | --batch | over all GPUs
        uratio             | --uratio |
        lr                 | --optim.lr |
        lr_end             | --optim.lr-end | with --optim.schedule linear
        wd                 | --optim.weight-decay | the Adam scripts decay apart from the gradient: --optim adamw
        beta1              | --optim.beta1 | with --optim adam
        beta2              | --optim.beta2 | with --optim adam
        momentum           | --optim.momentum |
        nesterov           | --optim.nesterov | or --optim.no-nesterov
        ema                | --ema.decay |
        arch               | --net | resnet is wrn-28-2-tf, cnn13 is cnn13-32, shake is shake
        filters            | --net.width | wrn-28-2 has 32, wrn-28-8 has 128
        repeat             | --net.blocks | 4 in wrn-28-2
        scales             | --net.stages | 3 in wrn-28-2, 4 in wrn-37-2
        dropout            | --net.dropout |
        smoothing          | --smoothing | of supervised; pi-model, mean-teacher, pseudo-label and vat ignore it there
        confidence         | --tau |
        threshold          | --tau |
        wu                 | --lambda-u |
        we                 | --w-entropy | of uda
        T                  | --temperature |
        temperature        | --temperature |
        tsa                | --tsa | no is none
        tsa_pos            | --tsa-ramp | in steps: min(train_kimg, 16384) * 2^tsa_pos / batch, 65536 by default
        anchoring          | --anchoring |
        augment            | --augment | the same tokens
        K                  | --strong-views | of remixmatch
        adepth             | | CTAugment has the depth 2
        adecay             | | CTAugment has the decay 0.99
        ath                | | CTAugment has the threshold 0.80
        beta               | --beta |
        w_match            | --w-match |
        w_kl               | --w-kl |
        w_rot              | --w-rot |
        warmup_kimg        | --ramp-steps | 1024 * warmup_kimg / batch
        warmup_pos         | --ramp | the same share of the training
        consistency_weight | --weight |
        redux              | --redux |
        use_dm             | --align | or --no-align
        use_xe             | --use-xe | or --no-use-xe
        p_unlabeled        | --p-unlabeled | of remixmatch; shares with spaces between
        vat                | --weight | of vat
        vat_eps            | --eps | of vat
        entmin_weight      | --w-entropy | of vat
        whiten             | --data.normalize measured | does not run there
        para_parse         | | images stay on the device, so that nothing is parsed while training
        para_augment       | | views are made on the device
        shuffle            | | images come in permutations of the whole set
        log_device_placement | | TensorFlow's
        seed               | --data.seed | of create_split.py, or SEED of the data name; --seed is that of the training
        size               | --data.labels | of create_split.py, or SIZE of the data name
        samples            | fewlabels data check NAME | it looks at every image
    """),
    "google-research/fixmatch, imagenet": _table("""
        dataset                    | --data | imagenet128116.S is imagenet.S@128116, by the rule of --data.rule, not their lists
        imagenet_data              | --data.root | with imagenet/train/WNID/ and imagenet/val/WNID/ in it
        model_dir                  | --out |
        per_worker_batch_size      | --batch | over all GPUs
        per_worker_eval_batch_size | | chosen by itself
        steps_per_run              | --eval-every |
        save_summaries_with_epoch  | | the horizontal axis is the step
        tpu                        | | no TPU; --device
        hparams                    | | each has its own option, below
        uratio                     | --uratio | 5
        fixmatch.wu                | --lambda-u | 10
        fixmatch.confidence        | --tau | 0.7
        bfloat16                   | --precision bf16 |
        num_epochs                 | --steps | num_epochs * labels / batch
        use_ema                    | --ema.decay | always on; 0 follows the net
        ema_decay                  | --ema.decay | with --ema.buffers averaged
        weight_decay               | --optim.weight-decay | twice theirs: their penalty has no factor 1/2
        input.saturate_uint8       | | as Pillow does
        input.scale_and_center     | --data.normalize minus-one-one |
        input.use_default_augment  | --weak | ImageNet's crop of random area is not here yet
        learning_rate.base_lr      | --optim.lr | theirs times batch / 256
        learning_rate.use_warmup   | --optim.warmup | 0 for none
        learning_rate.warmup_epochs | --optim.warmup | in steps
        learning_rate.decay_rate   | --optim.schedule | a schedule in stairs is not here; cosine, linear, constant
        learning_rate.decay_epochs | --optim.schedule | a schedule in stairs is not here; cosine, linear, constant
        augment.type               | --strong | randaugment is rand:imagenet, cta is cta:imagenet
        augment.use_ema_probe_image | | CTAugment always learns from the averaged net
        augment.randaugment_num_layers | | 2
        augment.randaugment_magnitude | | drawn anew for each operation
        augment.randaugment_prob_to_apply | | 0.5
        augment.cta_num_layers     | | 2
        augment.cta_confidence_threshold | | 0.85
        augment.cta_decay          | | 0.99
        augment.cta_epsilon        | | 0.001
        augment.cta_prob_to_apply  | | 0.5
        augment.cta_num_levels     | | 15
        input_dir                  | --data.root | of save_sharded_data.py; folders are read as they are
        sharding_file              | | nothing is sharded
        output_file_prefix         | | nothing is sharded
        num_shards                 | | nothing is sharded
        max_records_to_process     | | nothing is sharded
        fail_on_missing_examples   | | nothing is sharded
    """),
    "JoyHuYY1412/CADR-FixMatch": _table("""
        CAP              | --missing cap | with CAI cap+cai, with CADR cap+dr; cadr is all three, and an algorithm of that name
        CAI              | --missing cai |
        CADR             | --missing cap+dr | it does nothing there without CAP
        CAP_EMA          | --missing.prior | running is True, batch is False
        CAP_EMA_momentum | --missing.momentum |
        CAI_beta         | --missing.beta |
        upper            | --missing.upper |
        devicenum        | torchrun --nproc-per-node N -m fewlabels train | it is only part of a folder's name there
        lamda            | --data.imbalance | with --data.rule cadr; for create_unlabeled.py --data.imbalance-unlabeled
    """),
    "kekmodel/FixMatch-pytorch": _table("""
        gpu-id        | --device cuda:N |
        num-workers   | | images stay on the device, so that no worker loads them
        dataset       | --data | with its folders labeled/, unlabeled/ and test/ in data/, the fork's mstar is --data data/
        num-labeled   | --data.labels | or --data cifar10.SEED@4000; with --data.rule balanced the same images
        expand-labels | | labels are drawn without end, so that nothing has to be repeated; it never makes pseudo-labels
        arch          | --net | wideresnet is wrn-28-2 (CIFAR-100: wrn-28-8), resnext is resnext-28-4x4 (CIFAR-100: resnext-29-8x64)
        total-steps   | --steps |
        eval-step     | --eval-every |
        start-epoch   | | --resume RUN knows where it was
        batch-size    | --batch | over all GPUs; theirs is for each
        lr            | --optim.lr |
        learning-rate | --optim.lr |
        warmup        | --optim.warmup | in steps
        wdecay        | --optim.weight-decay |
        nesterov      | --optim.nesterov | it can be turned off here: --optim.no-nesterov
        use-ema       | --ema.decay | always on; the log has the raw net's accuracy too
        ema-decay     | --ema.decay |
        mu            | --uratio |
        lambda-u      | --lambda-u |
        T             | --temperature |
        threshold     | --tau |
        out           | --out |
        resume        | --resume RUN | the run folder, not a file
        seed          | --seed | of the training; the labels' is --data.seed, or SEED of the data name
        amp           | --precision bf16 |
        opt_level     | --precision | O1 and O2 are fp16 or bf16
        local_rank    | | torchrun sets it
        nproc_per_node | torchrun --nproc-per-node N -m fewlabels train |
        no-progress   | --no-progress |
    """),
    "LeeDoYup/FixMatch-pytorch": _table("""
        save_dir        | --out | save_dir/save_name
        save_name       | --out | save_dir/save_name
        resume          | --resume RUN | the run folder
        load_path       | --resume RUN | the run folder; for eval.py: fewlabels evaluate RUN --checkpoint best
        overwrite       | --overwrite |
        epoch           | | one pass of --steps
        num_train_iter  | --steps |
        num_eval_iter   | --eval-every |
        num_labels      | --data.labels | or --data cifar10.SEED@4000; with --data.rule balanced the same images
        batch_size      | --batch |
        uratio          | --uratio |
        eval_batch_size | | chosen by itself
        hard_label      | --target | hard or soft
        T               | --temperature | theirs counts with --target soft only
        p_cutoff        | --tau |
        ema_m           | --ema.decay | batch norm has 1 - ema_m there: --net.bn-momentum
        ulb_loss_ratio  | --lambda-u |
        lr              | --optim.lr |
        momentum        | --optim.momentum |
        weight_decay    | --optim.weight-decay |
        amp             | --precision fp16 |
        net             | --net | WideResNet is wrn-28-2; others are torchvision:NAME
        net_from_name   | --net torchvision:NAME |
        depth           | --net wrn-DEPTH-WIDTH |
        widen_factor    | --net wrn-DEPTH-WIDTH |
        leaky_slope     | --net.slope |
        dropout         | --net.dropout |
        data_dir        | --data.root |
        dataset         | --data |
        train_sampler   | | images come in permutations of the whole set
        num_classes     | | the data set knows
        num_workers     | | images stay on the device, so that no worker loads them
        world-size      | torchrun --nnodes N --nproc-per-node G -m fewlabels train |
        rank            | | torchrun sets it (--node-rank)
        dist-url        | torchrun --master-addr HOST --master-port PORT -m fewlabels train |
        dist_url        | torchrun --master-addr HOST --master-port PORT -m fewlabels train | its README's spelling
        dist-backend    | | NCCL on GPUs, Gloo on CPUs
        seed            | --seed | of the training; the labels' is --data.seed, or SEED of the data name
        gpu             | --device cuda:N |
        multiprocessing-distributed | torchrun --nproc-per-node N -m fewlabels train |
        use_train_model | fewlabels evaluate RUN --weights raw | of eval.py
    """),
    "uizard-technologies/realmix": _table("""
        dataset           | --data | NAME.SEED@SIZE-VALID with --data.rule realmix, or a folder; the copies of _augN names are not needed, as each draw has a view of its own
        train_dir         | --out | the run folder itself
        lr                | --optim.lr |
        batch             | --batch |
        train_kimg        | --steps | 1024 * train_kimg / batch
        report_kimg       | --eval-every | 1024 * report_kimg / batch
        save_kimg         | --save-every | 1024 * save_kimg / batch
        keep_ckpt         | --keep |
        epochs            | --steps | 1024 * report_kimg * epochs / batch
        eval_ckpt         | fewlabels evaluate RUN --checkpoint STEP | a command of its own
        load_checkpoint   | --net.pretrained FILE | weights without the head
        class_mapping     | --data.classes | every evaluation has the accuracy of each class
        arch              | --net | resnet is wrn-28-2-tf, convnet and shake have the same names
        para_parse        | | images stay on the device, so that nothing is parsed while training
        para_augment      | | views are made on the device
        shuffle           | | images come in permutations of the whole set
        p_unlabeled       | | nothing uses it there
        whiten            | --data.normalize measured |
        nu                | | two views
        log_device_placement | | TensorFlow's
        wd                | --optim.weight-decay | apart from the gradient: --optim adamw
        ema               | --ema.decay |
        beta              | --beta |
        w_match           | --w-match |
        scales            | --net.stages |
        filters           | --net.width | wrn-28-2 has 32
        repeat            | --net.blocks |
        custom_dataset    | --data photos/ | a folder says all of it
        nclass            | | the folders of the classes are counted
        img_size          | --data.image-size |
        label_size        | --data.labels | any size; of create_split.py: --data.candidates
        valid_size        | --data.valid | any size
        tsa               | --tsa | of uda; realmix is not here yet
        percent_mask      | | realmix is not here yet
        augment           | --weak | cifar10 is ms, svhn is s, stl10 is ms with --shift 12; color and the eraser come with realmix
        perform_inference | fewlabels predict RUN FOLDER |
        inference_dir     | fewlabels predict RUN FOLDER |
        inference_ckpt    | fewlabels predict RUN FOLDER --checkpoint STEP |
        memoize           | | images stay in memory where they fit: --data.residency
        consistency_weight | --weight |
        smoothing         | --smoothing | of supervised; the others ignore it there
        threshold         | --tau |
        warmup_pos        | --ramp |
        vat               | --weight | of vat
        vat_eps           | --eps | of vat
        entmin_weight     | --w-entropy | of vat
        train_record      | --data photos/ | or --data.labeled FOLDER
        test_record       | --data.test FOLDER |
        traindir          | --data.labeled FOLDER | of create_datasets.py and fs_pretrain_baseline.py
        testdir           | --data.test FOLDER | of create_datasets.py and fs_pretrain_baseline.py
        unlabeldir        | --data.unlabeled FOLDER | of create_datasets.py
        name              | --data photos/ | of create_datasets.py; a folder's name is its name
        train_balance     | --data.oversample | of create_datasets.py
        unlabel_balance   | | unlabeled pictures have no classes here
        prediction_balance | | unlabeled pictures have no classes here
        pseudolabel       | | predict, and sort the pictures into labeled/CLASS/
        cutout            | --strong cutout | of create_datasets.py; no copies are written
        cutout_prob       | | of create_datasets.py; no copies are written
        save              | --out | of fs_pretrain_baseline.py
        load              | --net.pretrained FILE | of fs_pretrain_baseline.py
        seed              | --data.seed | of create_split.py
        label_split_size  | --data.labels | of create_split.py
        custom            | --data.candidates | of create_split.py
        class_balance     | --data.prior equal | of create_split.py, with --data.rule realmix
        aug_dataset       | | of make_aug_copy.py; no copies are needed, as each draw has a view of its own
        aug_copy          | | of make_aug_copy.py; no copies are needed, as each draw has a view of its own
        unlabel_size      | | of make_aug_copy.py; no copies are needed, as each draw has a view of its own
        class_filter      | fewlabels data filter FROM TO --classes | or --data.keep-labeled, --data.keep-unlabeled, --data.keep-test
        filter_dataset    | fewlabels data filter FROM TO |
        save_name         | fewlabels data filter FROM TO |
        targetdir         | fewlabels data rename FROM TO | of preprocess_crops.py: fewlabels data crop FROM TO
        index             | fewlabels data rename FROM TO --index |
        filetype          | | every kind of picture is renamed
        savedir           | fewlabels data crop FROM TO |
        dimension         | fewlabels data crop FROM TO --size |
        force             | | a new folder is always written
        tfrecord          | fewlabels data convert FROM TO | of tfrecord_to_image.py
        save_path         | fewlabels data convert FROM TO | of tfrecord_to_image.py
        samples           | fewlabels data check NAME | it looks at every image
        path              | fewlabels evaluate RUN --list | of inspect_variables.py; weights are safetensors files
        json              | fewlabels evaluate RUN --json | of inspect_variables.py
    """),
}
"""Every option of each project, by its repository. CADR-FixMatch has those of google-research/fixmatch too."""


_SIZE = "--data.image-size is the side of own pictures in pixels"

USUAL: Mapping[str, str] = {
    "epoch": "--steps counts steps of --batch labeled images",
    "epochs": "--steps counts steps of --batch labeled images",
    "num-epochs": "--steps counts steps of --batch labeled images",
    "time": "--steps says how long it trains, and --dry-run what that takes",
    "time-limit": "--steps says how long it trains, and --dry-run what that takes",
    "patience": "it trains all of --steps; `fewlabels evaluate RUN --checkpoint best` has the best state",
    "imgsz": _SIZE,
    "image-size": _SIZE,
    "model": "--net names the network",
    "weights": "--net.pretrained True, or FILE, starts from learned weights",
    "pretrained": "--net.pretrained True, or FILE, starts from learned weights",
    "learning-rate": "--optim.lr is the learning rate",
    "lr0": "--optim.lr is the learning rate",
    "project": "--out is the folder of the run",
    "output": "--out is the folder of the run",
    "gpus": "--device cuda:N names one GPU, and torchrun takes several",
}
"""Words of many programs for what `fewlabels train` calls otherwise."""


def hint(word: str) -> str | None:
    """What to write for the option `word` (``--mu`` or ``--mu=7``), if one of the projects has it."""
    name = word.lstrip("-").partition("=")[0]
    for same in (str, _loose):
        for wanted in (name, name.removeprefix("no")):  # absl turns a flag off with --noNAME
            rows = [(p, f) for p, flags in PROJECTS.items() for f in flags if same(f.name) == same(wanted)]
            if word.startswith("-") and rows:
                return _sentence(rows)
    return None


def _loose(name: str) -> str:
    return name.lower().replace("-", "_")


def _sentence(rows: list[tuple[str, Flag]]) -> str:
    (project, flag), *others = rows
    same = any(other.ours == flag.ours for _, other in others)
    who = f"--{flag.name} of {project.partition(',')[0]}{' and others' if same else ''}"
    text = f"{who} is {flag.ours} here" if flag.ours else f"{who} has no counterpart"
    return f"{text}: {flag.remark}" if flag.remark else text

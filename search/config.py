"""The configuration keys of the ImageNet stage: search and classifier training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2.config import CfgNode

from detection.config import add_spnas_config
from detection.engine.cli import load_config


def load_search_config(file: str, options: Sequence[str] = ()) -> CfgNode:
    """The configuration of a file, for tools that take several or none from ``--config-file``.

    Args:
        file: as ``--config-file``.
        options: further keys and their values, in turns.
    """
    args = argparse.Namespace(config_file=file, opts=list(options))
    return load_config(args, add_search_config)


def add_search_config(cfg: CfgNode) -> None:
    """Adds the keys of classification and search to those of detection."""
    add_spnas_config(cfg)
    _add_classification(cfg)
    _add_search(cfg)
    # RMSProp as in TensorFlow ("rmsproptf"), "sgd", "adamw", or another optimizer of timm's.
    cfg.SOLVER.OPTIMIZER = "rmsproptf"
    cfg.SOLVER.OPTIMIZER_EPS = 1e-3
    # "exponential": × 0.97 every 2.4 epochs, MnasNet's; or "cosine", to 0.
    cfg.SOLVER.DECAY = "exponential"
    cfg.SOLVER.WARMUP_EPOCHS = 5.0


def _add_classification(cfg: CfgNode) -> None:
    cfg.CLASSIFICATION = node = CfgNode()
    # "imagenet" ($DETECTRON2_DATASETS/imagenet), "digits" (made at first use), a folder with
    # train/<class>/* and val/<class>/*, or one with tar files (docs/data.md), or their pattern:
    # "photos-train-{000000..000146}.tar::photos-val-{000000..000006}.tar".
    node.DATASET = "imagenet"
    # 0 takes the number of class folders.
    node.NUM_CLASSES = 1000
    # Side of the square images in pixels; 0 takes what the network, or the space, is made for.
    node.INPUT_SIZE = 224
    # Side of the centre crop over side of the resized image at evaluation.
    node.CROP_PCT = 0.875
    # The iterations follow from these epochs; SOLVER.MAX_ITER is not read.
    node.EPOCHS = 350.0
    node.EVAL_EPOCHS = 5.0
    node.CHECKPOINT_EPOCHS = 1.0
    node.DROP_RATE = 0.2
    node.LABEL_SMOOTHING = 0.1
    # Decay per step of the averaged weights, which are the ones evaluated and exported; 0 is off.
    node.EMA_DECAY = 0.9999
    # A trained classifier of the same classes to learn from beside the labels, named in the ways of
    # SEARCH.START, such as the start/ that a search left; "" is none. And its share of the loss.
    node.TEACHER = ""
    node.TEACHER_WEIGHT = 0.5
    node.AUGMENTATION = CfgNode()
    # Smallest and largest area of the random crop, as a part of the image.
    node.AUGMENTATION.CROP_SCALE = [0.08, 1.0]
    node.AUGMENTATION.CROP_RATIO = [0.75, 1.3333333]
    node.AUGMENTATION.FLIP = 0.5
    node.AUGMENTATION.COLOR_JITTER = 0.0
    # A policy of timm's, such as "rand-m9-mstd0.5"; "" is none.
    node.AUGMENTATION.AUTO_AUGMENT = ""


def _add_search(cfg: CfgNode) -> None:
    cfg.SEARCH = node = CfgNode()
    # A name below configs/search/spaces, the path of a space, or "around": the stages of
    # SEARCH.START, with the options of SEARCH.AROUND.
    node.SPACE = "imagenet"
    # The trained network to start from: a published one ("efficientnet_lite0",
    # "timm://mobilenetv2_100"), an architecture.json, or the folder of a run that left one.
    # MODEL.WEIGHTS are its weights; empty takes the published ones, or the backbone.pth beside it.
    # Empty starts from random weights.
    node.START = ""
    # What "around" offers every layer beside what the network itself has, and by how many layers a
    # stage can grow.
    node.AROUND = CfgNode()
    node.AROUND.KERNEL_SIZES = [3, 5]
    node.AROUND.EXPANSIONS = [3, 6]
    node.AROUND.SE_RATIOS = [0]
    node.AROUND.EXTRA_DEPTH = 0
    # The device to search for: a name below configs/latency, the path of a table, or what is
    # counted instead: "macs" or "params", in millions.
    node.LATENCY_TABLE = "pixel1"
    # Height and width of the images that the network found will run on; the table has to be for
    # them.
    node.DEPLOY_SIZE = [224, 224]
    # "interpolation" uses every entry of the table; "paper" is Eq. 12-17.
    node.RUNTIME_MODEL = "interpolation"
    # Runtime to end at, in the table's unit; λ is found on the way. 0 uses LAMBDA.
    node.TARGET = 80.0
    # Further targets: the search also leaves a network for each, in OUTPUT_DIR/family/<target>.
    node.FAMILY = []
    # Used where TARGET is 0. Multiplies ln(runtime) beside the cross entropy (Eq. 10). The
    # original code multiplies its λ by 1,000 first: its 0.02 is 20 here.
    node.LAMBDA = 0.1
    # What is trained when, and how the network is chosen: a key of FORMULATIONS
    # (search/runs/formulations/registry.py).
    node.FORMULATION = "sigmoid"
    # What thresholds are compared with: "relative", "norm" or "literal"
    # (search/supernets/thresholds.py); bilevel formulations compare with nothing.
    node.IMPORTANCE = "relative"
    node.TEMPERATURE = 1.0
    # Part of the training images that decisions are made on, in formulations that do not train
    # them with the weights.
    node.HELD_OUT = 0.2
    # Width of the supernet over the space's: multi-path supernets are slimmed to fit in memory
    # (0.5 in the paper). Then only an architecture is left, and no weights.
    node.WIDTH_MULT = 1.0
    # Search on as many classes, drawn at random (100 for the paper's multi-path); 0 is all.
    node.PROXY_CLASSES = 0
    # "random": networks to draw and to train for a few epochs, at the cost of one search in all.
    node.CANDIDATES = 8
    # "evolution": networks per generation, generations after the first one, and training batches
    # for the statistics of every network that is judged.
    node.EVOLUTION = CfgNode()
    node.EVOLUTION.POPULATION = 50
    node.EVOLUTION.GENERATIONS = 20
    node.EVOLUTION.CALIBRATION_BATCHES = 20
    # "sensitivity" and "taylor": how often the choices are measured on the way to the target,
    # images held out that they are measured on, and training batches for the statistics of every
    # network that is measured.
    node.SENSITIVITY = CfgNode()
    node.SENSITIVITY.ROUNDS = 2
    node.SENSITIVITY.IMAGES = 1000
    node.SENSITIVITY.CALIBRATION_BATCHES = 4
    # Networks at the target, near the best one, that are measured whole, until none is better: what
    # choices are worth does not add up.
    node.SENSITIVITY.RIVALS = 0
    # Networks to draw from the decisions' distribution besides the one found.
    node.SAMPLES = 0
    # Where every decision starts: temperatures above its threshold.
    node.INITIAL_LOGIT = 2.0
    # Learning rate of the thresholds over SOLVER.BASE_LR.
    node.THRESHOLD_LR_MULT = 10.0
    # Initial scale of the residual branches.
    node.RESIDUAL_SCALE = 0.2
    # Probability that a subset is dropped for a step, and until when (part of the search: the
    # paper drops in the first six of eight epochs).
    node.SUBSET_DROPOUT = 0.4
    node.SUBSET_DROPOUT_UNTIL = 0.75
    # The controller of λ (search/selection/tradeoff.py): when the budget starts to fall and reaches
    # the target, as parts of the search, and its gains.
    node.BUDGET_START = 0.1
    node.BUDGET_END = 0.75
    node.PROPORTIONAL_GAIN = 10.0
    node.INTEGRAL_GAIN = 0.1
    # Largest part by which the network found may be faster than the target.
    node.TOLERANCE = 0.01
    # What the network found maximises under the target: the "log_odds" of what it switches on, or
    # its "likelihood" (search/supernets/decisions.py).
    node.SELECTION = "likelihood"
    # Measure the network found, where the table's device and engine are at hand: some seconds at
    # the end of a search. Studies leave it out.
    node.MEASURE = True
    # Training batches to estimate the batch-norm statistics of the network found.
    node.CALIBRATION_BATCHES = 100
    # Training batches on which layers of a network, from the first that is not SEARCH.START's on,
    # are fitted to the start's (search/start/refitting.py); 0 leaves their weights. They stay in
    # memory.
    node.REFIT_BATCHES = 0

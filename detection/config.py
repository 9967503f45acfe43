"""The configuration keys of the detection stage."""

from __future__ import annotations

from detectron2.config import CfgNode

from detection.engine.config import add_engine_config


def add_spnas_config(cfg: CfgNode) -> None:
    """Adds the keys of backbones, evaluation and logging to Detectron2's defaults."""
    add_engine_config(cfg)
    cfg.DATA = CfgNode()
    # A folder with training and validation images, in COCO's layout or a label tool's; it takes the
    # place of DATASETS.TRAIN and DATASETS.TEST, whose entries may be paths as well (docs/data.md).
    cfg.DATA.ROOT = ""
    # What names in DATASETS stand for, as NAME=ANNOTATIONS.json:IMAGE_FOLDER; a run writes it into
    # its config.yaml.
    cfg.DATA.SETS = []

    cfg.MODEL.SPNAS = CfgNode()
    # A name of backbones.list_models(), or the path of an architecture.json.
    cfg.MODEL.SPNAS.ARCH = "spnas_100"
    # Factor on all channels (Fig. 7).
    cfg.MODEL.SPNAS.WIDTH_MULT = 1.0
    # FrozenBN, BN, SyncBN, GN, or another name that Detectron2's get_norm knows.
    cfg.MODEL.SPNAS.NORM = "FrozenBN"
    # Of res1 to res5, at strides 2 to 32. MODEL.BACKBONE.FREEZE_AT freezes as for a ResNet.
    cfg.MODEL.SPNAS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # The table that predicts the runtime in the final table: a name below configs/latency, the
    # path of a file, or "" for none. "auto" is the table that the network was searched on, which
    # its architecture file names, if that can be loaded; for a published network, pixel1.
    cfg.MODEL.SPNAS.LATENCY_TABLE = "auto"
    # The engine that measures the backbone for the final table, on one thread of this machine's
    # CPU, in the setting of the table: "torch", "onnxruntime", "litert", or "" for none.
    cfg.MODEL.SPNAS.ENGINE = ""
    if not cfg.key_is_renamed("MODEL.SPNAS.RUNTIME_ENGINE"):  # the keys may be added twice
        cfg.register_renamed_key("MODEL.SPNAS.RUNTIME_ENGINE", "MODEL.SPNAS.ENGINE")
    # Memory layout by pixel rather than by channel: of classifier and supernet, and of a whole
    # detector when it trains on a CPU, where a Mask R-CNN is a tenth faster, or in mixed precision,
    # as tensor cores take this layout.
    cfg.MODEL.SPNAS.CHANNELS_LAST = True

    # Depthwise separable convolutions in the pyramid; detection/modeling/heads has heads
    # to match.
    cfg.MODEL.FPN.LITE = False

    # For the backbones of timm, to compare with (build_timm_fpn_backbone).
    cfg.MODEL.TIMM = CfgNode()
    # A name that timm.create_model(NAME, features_only=True) knows, a tag after a dot included;
    # hf-hub:org/name and local-dir:/folder as well.
    cfg.MODEL.TIMM.NAME = "resnet50"
    # True downloads timm's weights; MODEL.WEIGHTS is for a whole detector and may be empty.
    cfg.MODEL.TIMM.PRETRAINED = False
    # FrozenBN, BN or SyncBN, for the batch norms of the network.
    cfg.MODEL.TIMM.NORM = "FrozenBN"
    # As MODEL.SPNAS.OUT_FEATURES.
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]

    # Different images that a run may leave out because they cannot be read;
    # unreadable_images.jsonl in OUTPUT_DIR lists them. 0 stops at the first one, and a detector's
    # test sets always do.
    cfg.DATALOADER.MAX_UNREADABLE_IMAGES = 0

    # Passes over the training images; they become SOLVER.MAX_ITER, and SOLVER.STEPS is scaled
    # along. 0 leaves both as they are.
    cfg.SOLVER.EPOCHS = 0.0
    # What mixed precision (SOLVER.AMP.ENABLED) computes in: "float16", whose losses are scaled and
    # whose steps with infinite gradients are skipped; "bfloat16", which needs neither, on a CPU or
    # a GPU of compute capability 8.0 or more; "auto": float16 on a GPU, and single precision on
    # a CPU, which is faster there.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # torch.compile for the steps of a training: of classifier, supernet, or a detector's backbone
    # without its pyramid. The first step takes long.
    cfg.SOLVER.COMPILE = False
    # Forward passes of an optimizer step, whose gradients are averaged. SOLVER.IMS_PER_BATCH stays
    # the batch of a step, over all processes and passes, and has to be a multiple of both; the
    # passes only share its memory. Iterations, schedules and λ count steps.
    cfg.SOLVER.ACCUMULATE = 1
    # "SGD" as in Detectron2 (SOLVER.MOMENTUM, SOLVER.NESTEROV), or "AdamW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Factor on the learning rate of the backbone, without its pyramid: below 1 where the backbone
    # is trained and the rest is not.
    cfg.SOLVER.BACKBONE_LR_MULT = 1.0
    # Keeps the best model of all evaluations (TEST.EVAL_PERIOD, or CLASSIFICATION.EVAL_EPOCHS) in
    # model_best.pth: "bbox/AP", "segm/AP50", "validation_loss", ... of a detector, of the first
    # test set if there are several; "val/top1", "val/loss", ... of a classifier; "" keeps none.
    cfg.SOLVER.BEST_METRIC = ""
    # Steps of a run whose loss or gradients may be NaN or infinite: they are skipped and counted.
    # One more ends the run, and says where in the network it begins; 0 ends it at the first.
    cfg.SOLVER.MAX_NONFINITE = 10
    # Checkpoints kept beside the final and the best one: the newest of those of the period. 0 keeps
    # three of a classifier or of a search on one, and all of a detector, as Detectron2 does.
    cfg.SOLVER.MAX_TO_KEEP = 0
    cfg.SOLVER.EARLY_STOPPING = CfgNode()
    # Evaluations without a better SOLVER.BEST_METRIC after which the training ends; 0: never.
    cfg.SOLVER.EARLY_STOPPING.PATIENCE = 0

    # Which implementation computes AP: "faster" (faster-coco-eval) or "pycocotools". Both give
    # the same numbers.
    cfg.TEST.COCO_BACKEND = "faster"
    # Images of the first test set that every evaluation draws with its predictions into the logs.
    cfg.TEST.NUM_VISUALIZATIONS = 4
    # Whether every evaluation of a training also finds the training's losses on the test sets.
    cfg.TEST.VALIDATION_LOSS = False

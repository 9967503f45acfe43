"""The configuration keys that every stage shares."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_engine_config(cfg: CfgNode) -> None:
    """Adds ``cfg.WANDB``: whether and how a run is logged to Weights & Biases."""
    cfg.WANDB = CfgNode()
    cfg.WANDB.ENABLED = True
    # "auto": online if an API key is found, else offline; "online", "offline" or "disabled".
    cfg.WANDB.MODE = "auto"
    cfg.WANDB.PROJECT = "spnas"
    # Empty: the name of the run folder.
    cfg.WANDB.NAME = ""
    cfg.WANDB.GROUP = ""
    cfg.WANDB.TAGS = []

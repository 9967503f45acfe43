"""The configuration keys that every stage shares."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_engine_config(cfg: CfgNode) -> None:
    """Adds ``cfg.WANDB``: whether and how a run is logged to Weights & Biases."""
    cfg.WANDB = CfgNode()
    cfg.WANDB.ENABLED = True
    # "auto": online if an API key is found, else offline; "online", "offline" or "disabled".
    cfg.WANDB.MODE = "auto"
    # What W&B's own environment variables say (WANDB_PROJECT, ...) replaces these defaults; a key
    # that is set to something else stays.
    cfg.WANDB.PROJECT = "spnas"
    # User or team; empty is the default of the account.
    cfg.WANDB.ENTITY = ""
    # Empty: the name of the run folder.
    cfg.WANDB.NAME = ""
    cfg.WANDB.GROUP = ""
    cfg.WANDB.TAGS = []
    cfg.WANDB.NOTES = ""
    cfg.WANDB.JOB_TYPE = ""

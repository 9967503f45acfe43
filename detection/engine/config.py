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
    # Empty: the group of the run that the network or its weights come from; without such a run, a
    # new one.
    cfg.WANDB.GROUP = ""
    cfg.WANDB.TAGS = []
    cfg.WANDB.NOTES = ""
    cfg.WANDB.JOB_TYPE = ""
    # Whether architecture, weights, latency table and report are artifacts of the run that made
    # them, and inputs of the runs that use them.
    cfg.WANDB.ARTIFACTS = True
    # The largest file that is uploaded as an artifact, in MB; of a larger one W&B gets path and
    # checksum alone. 0 uploads none.
    cfg.WANDB.ARTIFACT_MB = 500.0

"""Data loaders of checked data sets, in an order that a resumed run continues."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset, build_detection_test_loader
from detectron2.data.build import (
    build_detection_train_loader,
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
    trivial_batch_collator,
)
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler

from backbones.errors import UserError
from detection.data.checks import (
    Record,
    check_any_object,
    check_class_count,
    check_data_set,
    check_same_classes,
    load_records,
)
from detection.data.mapper import CheckedDatasetMapper, LenientMapper
from detection.data.proposals import add_proposals
from detection.engine.accumulation import images_per_pass
from detection.engine.preemption import loader_start
from detection.engine.sampler import Augmented, ResumableSampler
from detection.engine.unreadable import UnreadableImages

_log = logging.getLogger(__name__)


class BatchesByAspectRatio(Sampler[list[int]]):
    """Infinite batches of indices; wide and tall images are not mixed, which saves padding.

    The batches are made from indices, before anything is loaded, so a resumed run gets exactly
    the batches that the interrupted one did not see, whatever the number of workers. The images of
    a step are the same with any number of processes and of forward passes, which share them.

    Attributes:
        skip: steps that were made already.
    """

    def __init__(
        self,
        indices: Iterable[int],
        wide: Sequence[bool] | None,
        batch_size: int,
        passes: int = 1,
    ) -> None:
        """Makes batches of the stream ``indices``.

        Args:
            indices: the infinite stream of all processes.
            wide: for every image, whether it is wider than high; None mixes all images.
            batch_size: of a step, over all processes and forward passes.
            passes: a step's batches in every process.
        """
        self._indices = indices
        self._wide = wide
        self._batch_size = batch_size
        self._passes = passes
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()
        self.skip = 0

    def __iter__(self) -> Iterator[list[int]]:
        size = self._batch_size // (self._processes * self._passes)
        for batch in itertools.islice(self._steps(), self.skip, None):
            own = batch[self._rank :: self._processes]
            yield from (own[start : start + size] for start in range(0, len(own), size))

    def _steps(self) -> Iterator[list[int]]:
        buckets: tuple[list[int], list[int]] = ([], [])
        for index in self._indices:
            bucket = buckets[self._wide[index] if self._wide is not None else 0]
            bucket.append(index)
            if len(bucket) == self._batch_size:
                yield bucket[:]
                bucket.clear()


def build_train_loader(cfg: CfgNode) -> DataLoader[Record]:
    """The training loader of ``cfg``.

    Raises:
        UserError: if a data set is missing, broken or empty, or does not fit the model.
    """
    records = load_training_records(cfg)
    mapper = CheckedDatasetMapper(cfg, is_train=True)
    unreadable = UnreadableImages.of(cfg)
    batch = images_per_pass(cfg)
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        loader: DataLoader[Record] = build_detection_train_loader(
            cfg,
            mapper=LenientMapper(mapper, unreadable),
            dataset=records,
            total_batch_size=batch * comm.get_world_size(),
        )
        return loader
    wide = [record["width"] > record["height"] for record in records]
    seed = max(cfg.SEED, 0)
    sampler = ResumableSampler(len(records), shuffle=True, seed=seed, part=(0, 1))
    batches = BatchesByAspectRatio(
        sampler,
        wide if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SOLVER.ACCUMULATE,
    )
    images = MapDataset(DatasetFromList(records, copy=False), mapper)
    return DataLoader(
        Augmented(images, sampler.seed, unreadable),
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=loader_start(),
    )


def skip_batches(loader: DataLoader[Record], count: int) -> None:
    """Makes the next pass over a training loader begin behind the batches of ``count`` steps."""
    if isinstance(loader.batch_sampler, BatchesByAspectRatio):
        loader.batch_sampler.skip = count
    else:
        _log.warning("DATALOADER.SAMPLER_TRAIN cannot go on after a resume: its order starts again")
        # but not its augmentation: the seeds of loader processes are drawn from here
        torch.manual_seed((torch.initial_seed() + count) % 2**63)


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader[Record]:
    """The loader of one test set.

    Raises:
        UserError: if the data set is missing, broken or empty, or does not fit the model.
    """
    records = load_records(name)
    check_class_count(cfg, name)
    _log.info("Evaluating on %s: %d images", name, len(records))
    if cfg.MODEL.LOAD_PROPOSALS:
        position = list(cfg.DATASETS.TEST).index(name)
        add_proposals(name, records, cfg.DATASETS.PROPOSAL_FILES_TEST[position])
    loader: DataLoader[Record] = build_detection_test_loader(
        records,
        mapper=CheckedDatasetMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return loader


def load_training_records(cfg: CfgNode) -> list[Record]:
    """The images of all training sets that have something to learn from.

    Raises:
        UserError: as for :func:`build_train_loader`.
    """
    names = list(cfg.DATASETS.TRAIN)
    if not names:
        raise UserError("DATASETS.TRAIN is empty; name at least one data set, e.g. digits_train")
    records: list[Record] = []
    for position, name in enumerate(names):
        loaded = check_data_set(cfg, name, training=True)
        if cfg.MODEL.LOAD_PROPOSALS:
            add_proposals(name, loaded, cfg.DATASETS.PROPOSAL_FILES_TRAIN[position])
        records += loaded
    tests = [name for name in cfg.DATASETS.TEST if name in DatasetCatalog.list()]
    check_same_classes([*names, *tests])
    records = _filtered(cfg, records)
    check_any_object(names, len(records))
    annotations = (item for record in records for item in record.get("annotations", ()))
    objects = sum(not item.get("iscrowd", 0) for item in annotations)  # crowds are not trained on
    _log.info("Training on %s: %d images, %d objects", ", ".join(names), len(records), objects)
    classes = MetadataCatalog.get(names[0]).get("thing_classes")
    if classes is not None and "annotations" in records[0]:
        print_instances_class_histogram(records, classes)
    return records


def _filtered(cfg: CfgNode, records: list[Record]) -> list[Record]:
    if not records or "annotations" not in records[0]:
        return records
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = filter_images_with_only_crowd_annotations(records)
    if cfg.MODEL.KEYPOINT_ON and cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE > 0:
        records = filter_images_with_few_keypoints(
            records, cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        )
    return records

"""Detectron2's mapper, with clear words for images that cannot be used."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from backbones.errors import UserError
from detection.data.image_files import read_image
from detection.data.instances import masked_instances
from detection.engine.unreadable import UnreadableImageError, UnreadableImages


class CheckedDatasetMapper(DatasetMapper):
    """Augments an image as Detectron2 does, once it is read as all stages read it.

    Raises:
        UserError: naming the file, if the image is missing or truncated, or has another size or
            other masks than its annotations say.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One record of the data set → the model's input.

        Args:
            dataset_dict: an image in Detectron2's standard format.
        """
        record = copy.deepcopy(dataset_dict)
        image = self._read(record)
        inputs = T.AugInput(image, sem_seg=self._read_classes(record))
        transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        pixels = np.ascontiguousarray(inputs.image.transpose(2, 0, 1))
        record["image"] = torch.as_tensor(pixels)
        if inputs.sem_seg is not None:
            record["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            utils.transform_proposals(record, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._annotate(record, transforms, size)
        return record

    def _read(self, record: dict[str, Any]) -> np.ndarray:
        """(H, W, C), of the size that the record says; a record without a size gets it."""
        path = record["file_name"]
        image = read_image(path, self.image_format)
        try:
            utils.check_image_size(record, image)
        except utils.SizeMismatchError as error:
            reason = str(error).split(", ", 1)[-1].split(". Please")[0]
            raise UserError(
                f"the annotations do not fit the image '{path}': (width, height) {reason}; use "
                "the annotation file that belongs to these images, or mend its sizes"
            ) from None
        return image

    def _read_classes(self, record: dict[str, Any]) -> np.ndarray | None:
        """(H, W) class of every pixel, where the data set has them."""
        path = record.pop("sem_seg_file_name", None)
        if path is None:
            return None
        try:
            classes: np.ndarray = utils.read_image(path, "L").squeeze(2)
        except Exception as error:  # Pillow's parsers raise whatever they stumble over
            raise UnreadableImageError(
                f"cannot read the map of classes '{path}' ({error}) of the image "
                f"'{record['file_name']}'; copy it again or take both out",
                path,
            ) from None
        return classes

    def _annotate(self, record: dict[str, Any], transforms: Any, size: tuple[int, int]) -> None:
        try:
            with warnings.catch_warnings():
                # pycocotools' masks are read-only, which is all that Detectron2 does with them.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                self._transform_annotations(record, transforms, size)
        except (AssertionError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"the annotations of the image '{record['file_name']}' cannot be used ({reason}); "
                "mend them"
            ) from None

    def _transform_annotations(
        self,
        dataset_dict: dict[str, Any],
        transforms: T.TransformList,
        image_shape: tuple[int, int],
    ) -> None:
        """As Detectron2's, but an object without a mask keeps its box."""
        if not self.use_instance_mask:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        annotations = dataset_dict.pop("annotations")
        for annotation in () if self.use_keypoint else annotations:
            annotation.pop("keypoints", None)
        flips = self.keypoint_hflip_indices
        moved = [
            utils.transform_instance_annotations(
                item, transforms, image_shape, keypoint_hflip_indices=flips
            )
            for item in annotations
            if item.get("iscrowd", 0) == 0
        ]
        dataset_dict["instances"] = masked_instances(
            moved, image_shape, self.instance_mask_format, self.recompute_boxes
        )


class LenientMapper:
    """A mapper for Detectron2's own loaders, which replace what is None by another image.

    Args:
        mapper: of records.
        unreadable: images that are left out.
    """

    def __init__(self, mapper: CheckedDatasetMapper, unreadable: UnreadableImages) -> None:
        self.mapper = mapper
        self.unreadable = unreadable

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """As the mapper; None for an image that cannot be read."""
        try:
            return self.mapper(record)
        except UnreadableImageError as error:
            self.unreadable.leave_out(error)
            return None

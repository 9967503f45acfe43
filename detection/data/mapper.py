"""Detectron2's mapper, with clear words for images that cannot be used."""

from __future__ import annotations

import warnings
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError, transform_instance_annotations
from detectron2.data.transforms import TransformList
from PIL import Image

from backbones.errors import UserError
from detection.data.instances import masked_instances


class CheckedDatasetMapper(DatasetMapper):
    """Reads and augments an image as Detectron2 does.

    Raises:
        UserError: naming the file, if the image is missing or truncated, or has another size or
            other masks than its annotations say.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """One record of the data set → the model's input.

        Args:
            dataset_dict: an image in Detectron2's standard format.
        """
        path = dataset_dict.get("file_name", "?")
        try:
            with warnings.catch_warnings():
                # pycocotools' masks are read-only, which is all that Detectron2 does with them.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                result: dict[str, Any] | None = super().__call__(dataset_dict)
        except SizeMismatchError as error:
            reason = str(error).split(", ", 1)[-1].split(". Please")[0]
            raise UserError(
                f"the annotations do not fit the image '{path}': (width, height) {reason}; use "
                "the annotation file that belongs to these images, or mend its sizes"
            ) from None
        except FileNotFoundError:
            raise UserError(
                f"no image '{path}', which the annotations list; check the image folder"
            ) from None
        # Pillow's decoders raise SyntaxError for a broken PNG and OSError for the rest.
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"cannot read the image '{path}' ({error}); it is truncated or not an image: "
                "copy it again or take it out of the annotation file"
            ) from None
        except (AssertionError, TypeError, ValueError) as error:
            if not dataset_dict.get("annotations"):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"the annotations of the image '{path}' cannot be used ({reason}); mend them"
            ) from None
        return result

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: TransformList, image_shape: tuple[int, int]
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
            transform_instance_annotations(
                item, transforms, image_shape, keypoint_hflip_indices=flips
            )
            for item in annotations
            if item.get("iscrowd", 0) == 0
        ]
        dataset_dict["instances"] = masked_instances(
            moved, image_shape, self.instance_mask_format, self.recompute_boxes
        )

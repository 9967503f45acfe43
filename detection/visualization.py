"""Predictions drawn into images, for TensorBoard and W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import Visualizer


class PredictionImages(DatasetEvaluator):
    """Draws the first images of a test set with what was found in them.

    It runs beside the evaluator of the metrics, so it costs no inference of its own. During
    training the drawings go to the event storage; they stay in :attr:`images` in any case.
    """

    def __init__(
        self,
        dataset_name: str,
        count: int,
        score_threshold: float = 0.5,
        scale: float = 1.0,
    ) -> None:
        """Prepares an empty gallery.

        Args:
            dataset_name: a registered data set, for its class names.
            count: images to draw.
            score_threshold: detections below it are left out.
            scale: of the drawing relative to the image.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._name = dataset_name
        self._count = count
        self._score_threshold = score_threshold
        self._scale = scale
        self.images: dict[str, np.ndarray] = {}

    def reset(self) -> None:
        """Forgets the drawings."""
        self.images = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Draws a batch, as long as images are missing."""
        if not comm.is_main_process():
            return
        for record, output in zip(inputs, outputs, strict=True):
            if len(self.images) >= self._count:
                return
            if "instances" in output and "file_name" in record:
                name = f"predictions/{self._name}/{len(self.images)}"
                self.images[name] = self._draw(record["file_name"], output["instances"])

    def evaluate(self) -> None:
        """Puts the drawings, (3, H, W) in RGB, into the event storage if there is one."""
        if not self.images:
            return
        try:
            storage = get_event_storage()
        except AssertionError:  # Detectron2's way to say that no training is under way
            return
        for name, image in self.images.items():
            storage.put_image(name, image.transpose(2, 0, 1))

    def _draw(self, path: str, instances: Instances) -> np.ndarray:
        found = instances.to("cpu")
        found = found[found.scores >= self._score_threshold]
        visualizer = Visualizer(read_image(path, "RGB"), self._metadata, scale=self._scale)
        return np.asarray(visualizer.draw_instance_predictions(found).get_image())

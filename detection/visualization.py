"""Predictions drawn beside the ground truth, as files and for TensorBoard and W&B."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from backbones.files import write_atomic
from detection.data.checks import load_records
from detection.data.image_files import read_image

LONG_SIDE = 1000
"""Largest side of a picture in pixels."""


@contextlib.contextmanager
def same_colours() -> Iterator[None]:
    """Detectron2 draws its colours from NumPy's global generator."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Writes (H, W, 3) in RGB, whole or not at all."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    write_atomic(path, file.getvalue())


class PredictionImages(DatasetEvaluator):
    """Draws the first images of a test set: the ground truth, and to its right what was found.

    It runs beside the evaluator of the metrics, so it costs no inference of its own. During
    training the pictures also go to the event storage; they stay in ``images`` in any case.
    """

    def __init__(
        self,
        dataset_name: str,
        count: int,
        score_threshold: float = 0.5,
        output_dir: str | Path | None = None,
    ) -> None:
        """Prepares an empty gallery.

        Args:
            dataset_name: a registered data set, for its class names.
            count: images to draw.
            score_threshold: detections below it are left out.
            output_dir: where the pictures are written; None for nowhere.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        self._name = dataset_name
        self._count = count
        self._score_threshold = score_threshold
        self._output_dir = output_dir
        self.images: dict[str, np.ndarray] = {}
        self._files: dict[str, str] = {}

    def reset(self) -> None:
        """Forgets the drawings."""
        self.images, self._files = {}, {}

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
                self.images[name] = self.draw(record["file_name"], output["instances"])
                self._files[name] = f"{len(self._files)}_{Path(record['file_name']).stem}.jpg"

    def evaluate(self) -> None:
        """Writes the pictures, and puts them, (3, H, W) in RGB, into the event storage if any."""
        if not self.images:
            return
        for name, image in self.images.items() if self._output_dir else ():
            write_jpeg(Path(self._output_dir or "", self._files[name]), image)
        try:
            storage = get_event_storage()
        except AssertionError:  # Detectron2's way to say that no training is under way
            return
        for name, image in self.images.items():
            storage.put_image(name, image.transpose(2, 0, 1))

    @cached_property
    def _truth(self) -> dict[str, list[dict[str, Any]]]:
        """The annotations of every image, by its path."""
        return {
            record["file_name"]: record.get("annotations", [])
            for record in load_records(self._name)
        }

    def draw(self, path: str, instances: Instances) -> np.ndarray:
        """(H, W, 3) in RGB: the ground truth of an image, and to its right what was found in it.

        Args:
            path: of the image, as the data set's records have it.
            instances: found in it.
        """
        with same_colours():
            return self._drawn(path, instances)

    def _drawn(self, path: str, instances: Instances) -> np.ndarray:
        image = read_image(path)
        height, width = image.shape[:2]
        scale = min(1.0, LONG_SIDE / (2 * width), LONG_SIDE / height)
        truth, found = (Visualizer(image, self._metadata, scale=scale) for _ in range(2))
        truth.draw_dataset_dict({"annotations": self._truth.get(path, [])})
        instances = instances.to("cpu")
        instances = instances[instances.scores >= self._score_threshold]
        found.draw_instance_predictions(instances)
        if not len(instances):
            found.draw_text(f"no box above {self._score_threshold:g}", (width / 2, height / 20))
        pictures = [np.asarray(drawn.output.get_image()) for drawn in (truth, found)]
        return np.concatenate(pictures, axis=1)

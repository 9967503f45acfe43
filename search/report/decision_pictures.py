"""The decisions of a search over time as pictures, for TensorBoard and W&B."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from search.report.decisions import histories
from search.report.runs import read_run

logger = logging.getLogger(__name__)


class DecisionPictures(HookBase):
    """Puts a heat map of every kind of decision, layers by iterations, into the event storage.

    It does so behind the last iteration, from ``metrics.json``, so that the map of a resumed run
    is whole.
    """

    def after_train(self) -> None:
        """Draws; what goes wrong is only logged."""
        if self.trainer.iter < self.trainer.max_iter or not comm.is_main_process():
            return
        try:
            drawn = {
                f"decisions_over_time/{history.kind}": history.picture()
                for history in histories(read_run(Path(self.trainer.folder)))
            }
        except Exception as error:  # the search is worth more than its pictures
            logger.warning("The decisions over time could not be drawn: %s", error)
            return
        storage = get_event_storage()
        for name, picture in drawn.items():
            storage.put_image(name, picture.transpose(2, 0, 1))

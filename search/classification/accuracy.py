"""Top-1 and top-5 accuracy over all processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from torch import Tensor, nn

from search.classification.pixels import expected_images, normalised


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy of a classifier in eval mode.

    Args:
        model: images (N, 3, H, W), normalised as it expects them → logits (N, C).
        batches: of this process, images (N, 3, H, W) uint8 and classes (N,); the counts of all
            processes are added up.

    Returns:
        ``top1`` and ``top5`` in percent, and ``loss``, the mean cross entropy.
    """
    device, expected = next(model.parameters()).device, expected_images(model)
    # right in the first one, right in the first five, sum of losses, images
    totals = torch.zeros(4, dtype=torch.float64)
    with inference_context(model):
        for images, targets in batches:
            if not len(targets):
                continue
            pixels = normalised(images.to(device, non_blocking=True), expected)
            logits = model(pixels).float().cpu()
            best = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
            loss = F.cross_entropy(logits, targets, reduction="sum")
            counts = [best[:, 0].sum(), best.any(1).sum(), loss, len(targets)]
            totals += torch.tensor([float(count) for count in counts], dtype=torch.float64)
    top1, top5, loss, count = torch.stack(comm.all_gather(totals)).sum(0).tolist()
    return {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count}

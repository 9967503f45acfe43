"""What a detector does outside its networks, in NumPy alone: from an image to boxes and masks.

An exported detector is up to three static networks: ``image`` (an image → scores and deltas of
anchors, and pyramid levels), ``boxes`` and ``masks`` (pooled features of boxes → classes and
boxes, or masks). This folder does the rest as Detectron2 does it: resizing, anchors, RoIAlign,
non-maximum suppression, pasting of masks. It needs no other file of the project, and a copy lies
beside every exported detector::

    from postprocess import detect

    detector = json.load(open("detector.json"))["detector"]
    found = detect(image, detector, run)  # image: (H, W, 3) uint8, RGB

where ``run(name, arrays)`` runs the network ``name`` on arrays by the names of its inputs and
returns its outputs by their names. Maps are (N, C, H, W); ``detect(..., channels_last=True)``
hands them on as (N, H, W, C), as the files of LiteRT have them.
"""

from __future__ import annotations

from .steps import Detections, Run, detect

__all__ = ["Detections", "Run", "detect"]

"""Every kind of fault that annotations are checked for, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate

Severity = Literal["error", "oddity", "share"]

MOST = 0.5
"""Share of the objects from which on a kind of severity ``share`` is an error."""

_LEFT_OUT = "the training leaves them out, but AP counts them as missed"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        group: what it is a fault of.
        title: what is counted.
        severity: ``share`` is an oddity, and an error where at least half the objects have it.
        advice: what follows, and the way out; names in braces are filled in.
    """

    group: str
    title: str
    severity: Severity
    advice: str


KINDS = {
    "class_no_text": Kind(
        "classes", "class names that are no text", "error", "expected text in quotes"
    ),
    "class_empty": Kind("classes", "empty class names", "error", "give every class a name"),
    "class_twice": Kind(
        "classes",
        "class names that stand twice",
        "error",
        "AP by class could not tell them apart: rename one, or merge them to one id",
    ),
    "class_alike": Kind(
        "classes",
        "class names that differ in case or spaces alone",
        "oddity",
        "they are different classes to the model: merge them if they are one",
    ),
    "class_dummy": Kind(
        "classes",
        "dummy classes, above all others, without an object",
        "oddity",
        "label tools write them; the model gets a class that it never sees and AP is '–' for it: "
        "take it out of the categories",
    ),
    "class_unused": Kind(
        "classes",
        "classes without an object",
        "oddity",
        "they are never learned, or never asked for, and AP is '–' for them: take them out if "
        "they should not be there",
    ),
    "class_other_ids": Kind(
        "classes",
        "classes with other ids than in '{other}'",
        "oddity",
        "they are matched by name and order, so AP is right",
    ),
    "class_other_names": Kind(
        "classes",
        "classes other than those of '{other}'",
        "error",
        "a detector counts classes in the order of their ids: write the same classes in the same "
        "order into both files",
    ),
    "id_unusable": Kind(
        "ids",
        "ids that are neither numbers nor text",
        "error",
        "give images, classes and objects ids",
    ),
    "image_twice": Kind(
        "ids", "image ids that stand twice", "error", "give every image an id of its own"
    ),
    "category_twice": Kind(
        "ids", "class ids that stand twice", "error", "give every class an id of its own"
    ),
    "annotation_twice": Kind(
        "ids",
        "annotation ids that stand twice",
        "oddity",
        "all of them are used here, but other tools keep the last alone: number them anew",
    ),
    "file_twice": Kind(
        "ids",
        "image files that stand twice",
        "oddity",
        "each entry has but its own objects, and the others count as background: merge them",
    ),
    "image_unknown": Kind(
        "ids",
        "annotations of images that the file does not list",
        "share",
        "they are left out of training and AP: list the images, by ids of the same type, or "
        "delete the annotations",
    ),
    "category_unknown": Kind(
        "ids",
        "annotations of classes that the file does not list",
        "error",
        "add the category, by an id of the same type, or delete the annotations",
    ),
    "object_twice": Kind(
        "ids",
        "objects that stand twice, with one image, class and box",
        "oddity",
        "AP counts each, and a detector finds but one: delete the copies",
    ),
    "ignored": Kind(
        "ids",
        "annotations with 'ignore'",
        "error",
        "AP does not know it: set iscrowd 1 instead, or delete them",
    ),
    "size_unknown": Kind(
        "images",
        "images without a width and height",
        "error",
        "expected numbers of pixels above 0",
    ),
    "box_missing": Kind(
        "boxes", "annotations without a bbox", "error", "expected [x, y, width, height]"
    ),
    "box_malformed": Kind(
        "boxes",
        "boxes that are not four finite numbers",
        "error",
        "expected [x, y, width, height]",
    ),
    "box_corners": Kind(
        "boxes",
        "boxes that look like corners, [left, top, right, bottom]",
        "share",
        "expected [x, y, width, height]: subtract the corner",
    ),
    "box_centre": Kind(
        "boxes",
        "boxes that look like [centre x, centre y, width, height]",
        "share",
        "expected [x, y, width, height] with the left top corner: subtract half the size",
    ),
    "box_normalised": Kind(
        "boxes",
        "boxes that look like fractions of the image",
        "share",
        "expected pixels: multiply by the image's width and height",
    ),
    "box_negative": Kind(
        "boxes",
        "boxes of negative width or height",
        "share",
        f"{_LEFT_OUT}: expected [x, y, width, height]",
    ),
    "box_empty": Kind(
        "boxes",
        "boxes of no width or height",
        "share",
        f"{_LEFT_OUT}: delete or mend them",
    ),
    "box_outside": Kind(
        "boxes",
        "boxes wholly outside their image",
        "share",
        f"{_LEFT_OUT}: delete or mend them",
    ),
    "box_beyond": Kind(
        "boxes",
        "boxes that reach beyond their image",
        "oddity",
        "the training cuts them off at the border, AP does not: cut them off in the file",
    ),
    "box_percent": Kind(
        "boxes",
        "boxes that look like percentages of the image",
        "oddity",
        "nothing lies beyond pixel 100 of larger images: expected pixels",
    ),
    "mask_off_box": Kind(
        "boxes",
        "boxes and masks that disagree",
        "oddity",
        "they overlap by less than half: is one of another image size, or of another object?",
    ),
    "mask_none_at_all": Kind(
        "masks",
        "objects, all of them, without a usable mask",
        "error",
        "the data set has no segmentation; add masks, or set MODEL.MASK_ON False to use boxes "
        "alone",
    ),
    "mask_malformed": Kind(
        "masks",
        "masks that are neither polygons of numbers nor run-length encoded",
        "error",
        "expected [[x, y, x, y, …], …] or {{'size': [height, width], 'counts': …}}",
    ),
    "mask_broken": Kind(
        "masks",
        "run-length encoded masks whose counts do not add up to their size",
        "error",
        "the file is damaged, or height and width are swapped: encode the masks again",
    ),
    "mask_other_size": Kind(
        "masks",
        "masks of another size than their image",
        "error",
        "use the annotation file that belongs to these images",
    ),
    "mask_short": Kind(
        "masks",
        "masks with polygons of fewer than three points",
        "oddity",
        "such polygons are left out; what has no other keeps its box",
    ),
    "mask_odd": Kind(
        "masks",
        "masks with polygons of an odd number of coordinates",
        "oddity",
        "such polygons are left out; what has no other keeps its box",
    ),
    "mask_flat": Kind(
        "masks",
        "masks with polygons whose points lie on one line",
        "oddity",
        "such polygons are left out; what has no other keeps its box",
    ),
    "mask_empty": Kind(
        "masks", "run-length encoded masks without a pixel", "oddity", "what has them keeps its box"
    ),
    "mask_missing": Kind(
        "masks",
        "objects with a box, but no usable mask",
        "oddity",
        "they train the box and are left out of the mask loss; mask AP neither asks for them nor "
        "counts what is found there",
    ),
    "mask_encoded": Kind(
        "masks",
        "run-length encoded masks under INPUT.MASK_FORMAT polygon",
        "oddity",
        "their images are trained with bitmaps: set INPUT.MASK_FORMAT bitmask to say so",
    ),
    "area_missing": Kind(
        "areas",
        "objects without an area above 0",
        "oddity",
        "AP by scale goes by the areas of their masks, or, without one, of their boxes",
    ),
    "area_of_box": Kind(
        "areas",
        "objects with the area of their box instead of their mask's",
        "oddity",
        "AP by scale goes by the file, which puts {moved:,} of them into a larger scale than "
        "their masks: take 'area' out of the file to have it computed",
    ),
    "area_other": Kind(
        "areas",
        "objects whose area is not that of their {what}",
        "oddity",
        "AP by scale goes by the file; is it of another image size? Take 'area' out of the file "
        "to have it computed",
    ),
    "none_to_train": Kind(
        "objects",
        "images of a training set, all of them, without an object",
        "oddity",
        "nothing but background is learned from them: name the annotation file that has objects",
    ),
    "none_to_find": Kind(
        "objects",
        "images of a test set, all of them, without an object",
        "oddity",
        "every AP is '–' for them: name the annotation file that has objects",
    ),
    "too_many": Kind(
        "objects",
        "images with more objects than TEST.DETECTIONS_PER_IMAGE, which is {most}",
        "oddity",
        "what is beyond counts as missed: set TEST.DETECTIONS_PER_IMAGE {needed} or more",
    ),
}
"""By key. The order is that in which they are said."""


def kinds_table() -> str:
    """All kinds as a Markdown table, for the page on data."""
    said = {
        "error": "refused",
        "oddity": "warned of",
        "share": "warned of; refused from half the objects on",
    }
    rows: list[Sequence[str]] = [
        [
            kind.group,
            _plain(kind.title),
            said[kind.severity],
            _plain(kind.advice),
        ]
        for kind in KINDS.values()
    ]
    headers = ["of", "kind", "what is done", "what is said"]
    return str(tabulate(rows, headers, "github", disable_numparse=True))


def _plain(text: str) -> str:
    shown = {"other": "NAME", "moved:,": "N", "most": "N", "needed": "N", "what": "mask or box"}
    for key, value in shown.items():
        text = text.replace("{" + key + "}", value)
    return text.replace("{{", "{").replace("}}", "}")

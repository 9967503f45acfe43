"""The model of mask_rcnn_spnas_fpn_1x.yaml as a LazyConfig.

from detectron2.config import LazyConfig, instantiate
model = instantiate(LazyConfig.load("configs/detection/mask_rcnn_spnas_fpn_lazy.py").model)
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from backbones import load_architecture
from detection.modeling.backbone import SPNASBackbone, build_trunk

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
model.backbone.bottom_up = L(SPNASBackbone)(
    trunk=L(build_trunk)(
        architecture=L(load_architecture)(name_or_path="spnas_100"),
        norm="SyncBN",
    ),
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=0,
)
model.input_format = "RGB"
model.pixel_mean = [123.675, 116.28, 103.53]
model.pixel_std = [58.395, 57.12, 57.375]

"""From images to what is predicted for each pixel: backbones, and the heads that stand on them."""

from geoframe.heads.backbone import Backbone as Backbone
from geoframe.heads.backbone import backbone as backbone
from geoframe.heads.fields import Field as Field
from geoframe.heads.fields import FieldHead as FieldHead

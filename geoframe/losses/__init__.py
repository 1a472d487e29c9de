"""Losses: pure functions of tensors that return a scalar; weights live with who trains."""

from geoframe.losses.keypoints import chamfer_loss as chamfer_loss
from geoframe.losses.keypoints import coverage_loss as coverage_loss
from geoframe.losses.keypoints import extent_loss as extent_loss
from geoframe.losses.keypoints import inclusivity_loss as inclusivity_loss
from geoframe.losses.keypoints import likeness_loss as likeness_loss
from geoframe.losses.keypoints import outside_loss as outside_loss
from geoframe.losses.keypoints import separation_loss as separation_loss
from geoframe.losses.keypoints import upright_loss as upright_loss

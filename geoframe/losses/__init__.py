"""Losses: pure functions of tensors that return a scalar; weights live with who trains."""

from geoframe.losses.clouds import chamfer_loss as chamfer_loss
from geoframe.losses.clouds import coverage_loss as coverage_loss
from geoframe.losses.clouds import extent_loss as extent_loss
from geoframe.losses.clouds import inclusivity_loss as inclusivity_loss
from geoframe.losses.clouds import local_shape_loss as local_shape_loss
from geoframe.losses.clouds import outside_loss as outside_loss
from geoframe.losses.clouds import separation_loss as separation_loss
from geoframe.losses.clouds import upright_loss as upright_loss

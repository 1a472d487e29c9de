"""Losses: pure functions of tensors that return a scalar; weights live with who trains."""

from geoframe.losses.clouds import chamfer_loss as chamfer_loss
from geoframe.losses.clouds import coverage_loss as coverage_loss
from geoframe.losses.clouds import extent_loss as extent_loss
from geoframe.losses.clouds import inclusivity_loss as inclusivity_loss
from geoframe.losses.clouds import local_shape_loss as local_shape_loss
from geoframe.losses.clouds import outside_loss as outside_loss
from geoframe.losses.clouds import separation_loss as separation_loss
from geoframe.losses.clouds import upright_loss as upright_loss
from geoframe.losses.embeddings import geodesic_cross_entropy as geodesic_cross_entropy
from geoframe.losses.embeddings import mask_loss as mask_loss
from geoframe.losses.embeddings import pixel_cycle_loss as pixel_cycle_loss
from geoframe.losses.embeddings import shape_cycle_loss as shape_cycle_loss
from geoframe.losses.embeddings import vertex_cross_entropy as vertex_cross_entropy

"""Dense optical flow from sparse matches: interpolation that respects edges, refinement; what moves otherwise."""

from geoframe.flow.confidence import confidence_from_signs as confidence_from_signs
from geoframe.flow.confidence import flow_signs as flow_signs
from geoframe.flow.dominant import dominant_motion as dominant_motion
from geoframe.flow.dominant import moving_pixels as moving_pixels
from geoframe.flow.dominant import otsu_threshold as otsu_threshold
from geoframe.flow.interpolate import edge_strength as edge_strength
from geoframe.flow.interpolate import interpolate_matches as interpolate_matches
from geoframe.flow.library import dis_flow as dis_flow
from geoframe.flow.refine import refine_flow as refine_flow
from geoframe.flow.warp import pixel_grid as pixel_grid
from geoframe.flow.warp import sample_at as sample_at
from geoframe.flow.warp import values_at as values_at
from geoframe.flow.warp import warp_back as warp_back

"""Measures of the papers, as pure functions with exact definitions."""

from geoframe.metrics.clouds import SURFACE_REACH as SURFACE_REACH
from geoframe.metrics.clouds import asymmetry as asymmetry
from geoframe.metrics.clouds import box_coverage as box_coverage
from geoframe.metrics.clouds import box_overlap as box_overlap
from geoframe.metrics.clouds import clusters as clusters
from geoframe.metrics.clouds import dual_alignment_score as dual_alignment_score
from geoframe.metrics.clouds import inclusivity as inclusivity
from geoframe.metrics.clouds import merge_keypoints as merge_keypoints
from geoframe.metrics.clouds import merged as merged
from geoframe.metrics.clouds import model_error as model_error
from geoframe.metrics.clouds import points_covered as points_covered
from geoframe.metrics.clouds import repeatability as repeatability
from geoframe.metrics.clouds import semantic_consistency as semantic_consistency
from geoframe.metrics.clouds import surface_distance as surface_distance
from geoframe.metrics.clouds import symmetry_error as symmetry_error
from geoframe.metrics.registration import fit_similarity as fit_similarity
from geoframe.metrics.registration import random_pairs as random_pairs
from geoframe.metrics.registration import register_pairs as register_pairs
from geoframe.metrics.registration import relative_rotation_error as relative_rotation_error

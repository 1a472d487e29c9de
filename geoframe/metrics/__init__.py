"""Measures of the papers, as pure functions with exact definitions."""

from geoframe.metrics.keypoints import asymmetry as asymmetry
from geoframe.metrics.keypoints import box_overlap as box_overlap
from geoframe.metrics.keypoints import clusters as clusters
from geoframe.metrics.keypoints import coverage as coverage
from geoframe.metrics.keypoints import dual_alignment_score as dual_alignment_score
from geoframe.metrics.keypoints import inclusivity as inclusivity
from geoframe.metrics.keypoints import merge_keypoints as merge_keypoints
from geoframe.metrics.keypoints import merged as merged
from geoframe.metrics.keypoints import model_error as model_error
from geoframe.metrics.keypoints import points_covered as points_covered
from geoframe.metrics.keypoints import repeatability as repeatability
from geoframe.metrics.keypoints import semantic_consistency as semantic_consistency
from geoframe.metrics.keypoints import surface_distance as surface_distance
from geoframe.metrics.keypoints import symmetry_error as symmetry_error
from geoframe.metrics.registration import fit_turn as fit_turn
from geoframe.metrics.registration import random_pairs as random_pairs
from geoframe.metrics.registration import register_pairs as register_pairs
from geoframe.metrics.registration import relative_rotation_error as relative_rotation_error

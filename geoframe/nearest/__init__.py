"""Exact nearest neighbours: by brute force in blocks, from a good guess, of many queries that are alike."""

from geoframe.nearest.coherent import nearest_coherent as nearest_coherent
from geoframe.nearest.dense import lowest_score as lowest_score
from geoframe.nearest.dense import nearest as nearest
from geoframe.nearest.embedded import decode_embedding as decode_embedding
from geoframe.nearest.embedded import embedding_logits as embedding_logits
from geoframe.nearest.embedded import least_expected_distance as least_expected_distance
from geoframe.nearest.embedded import nearest_vertices as nearest_vertices
from geoframe.nearest.embedded import posterior_confidence as posterior_confidence
from geoframe.nearest.embedded import unit_rows as unit_rows
from geoframe.nearest.embedded import vertex_posterior as vertex_posterior
from geoframe.nearest.guided import Patches as Patches
from geoframe.nearest.guided import nearest_by_guess as nearest_by_guess
from geoframe.nearest.guided import patches as patches

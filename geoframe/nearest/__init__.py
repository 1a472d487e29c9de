"""Exact nearest neighbours: by brute force in blocks, from a good guess, with compiled scans of candidates."""

from geoframe.nearest.dense import lowest_score as lowest_score
from geoframe.nearest.dense import nearest as nearest
from geoframe.nearest.guided import Patches as Patches
from geoframe.nearest.guided import nearest_by_guess as nearest_by_guess
from geoframe.nearest.guided import patches as patches

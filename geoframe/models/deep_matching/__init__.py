"""Quasi-dense matches and dense flow between two images, trainable."""

from geoframe.models.deep_matching.network import DeepMatcher as DeepMatcher
from geoframe.models.deep_matching.predictor import ImageMatches as ImageMatches
from geoframe.models.deep_matching.predictor import match_images as match_images

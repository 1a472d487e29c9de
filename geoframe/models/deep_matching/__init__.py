"""Quasi-dense matches and dense flow between two images, trainable."""

from geoframe.models.deep_matching.evaluate import evaluate as evaluate
from geoframe.models.deep_matching.network import DeepMatcher as DeepMatcher
from geoframe.models.deep_matching.predictor import ImageMatches as ImageMatches
from geoframe.models.deep_matching.predictor import Predictor as Predictor
from geoframe.models.deep_matching.predictor import load as load
from geoframe.models.deep_matching.predictor import match_fields as match_fields
from geoframe.models.deep_matching.predictor import match_images as match_images
from geoframe.models.deep_matching.predictor import match_pixel_maps as match_pixel_maps
from geoframe.models.deep_matching.predictor import train as train
from geoframe.models.deep_matching.recipe import EXPONENTS as EXPONENTS
from geoframe.models.deep_matching.recipe import FEATURES as FEATURES
from geoframe.models.deep_matching.recipe import OURS as OURS
from geoframe.models.deep_matching.recipe import PAPER as PAPER
from geoframe.models.deep_matching.recipe import Recipe as Recipe

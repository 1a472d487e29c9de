"""Inter-intra landmarks, learned without labels by painting (Li et al. 2020)."""

from geoframe.models.inter_intra.evaluate import evaluate as evaluate
from geoframe.models.inter_intra.evaluate import painting_error as painting_error
from geoframe.models.inter_intra.predictor import Predictor as Predictor
from geoframe.models.inter_intra.predictor import load as load
from geoframe.models.inter_intra.predictor import train as train
from geoframe.models.inter_intra.recipe import BASELINE as BASELINE
from geoframe.models.inter_intra.recipe import OURS as OURS
from geoframe.models.inter_intra.recipe import PAPER as PAPER
from geoframe.models.inter_intra.recipe import RECIPES as RECIPES
from geoframe.models.inter_intra.recipe import Recipe as Recipe

"""Features of pixels learned from motion, without labels."""

from geoframe.models.flow_similarity.evaluate import evaluate as evaluate
from geoframe.models.flow_similarity.evaluate import foreground as foreground
from geoframe.models.flow_similarity.evaluate import foreground_by_motion as foreground_by_motion
from geoframe.models.flow_similarity.evaluate import linear_probe as linear_probe
from geoframe.models.flow_similarity.network import FlowFeatures as FlowFeatures
from geoframe.models.flow_similarity.predictor import Predictor as Predictor
from geoframe.models.flow_similarity.predictor import cluster as cluster
from geoframe.models.flow_similarity.predictor import load as load
from geoframe.models.flow_similarity.predictor import train as train
from geoframe.models.flow_similarity.recipe import OURS as OURS
from geoframe.models.flow_similarity.recipe import PAPER as PAPER
from geoframe.models.flow_similarity.recipe import Recipe as Recipe

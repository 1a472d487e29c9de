"""Ordered, symmetric 3D keypoints of a category, learned without labels."""

from geoframe.models.category_keypoints.evaluate import evaluate as evaluate
from geoframe.models.category_keypoints.network import CategoryKeypoints as CategoryKeypoints
from geoframe.models.category_keypoints.network import Keypoints as Keypoints
from geoframe.models.category_keypoints.network import PaperKeypoints as PaperKeypoints
from geoframe.models.category_keypoints.predictor import Prediction as Prediction
from geoframe.models.category_keypoints.predictor import Predictor as Predictor
from geoframe.models.category_keypoints.predictor import load as load
from geoframe.models.category_keypoints.predictor import register as register
from geoframe.models.category_keypoints.predictor import train as train
from geoframe.models.category_keypoints.recipe import OURS as OURS
from geoframe.models.category_keypoints.recipe import PAPER as PAPER
from geoframe.models.category_keypoints.recipe import PAPER_AS_WRITTEN as PAPER_AS_WRITTEN
from geoframe.models.category_keypoints.recipe import Recipe as Recipe

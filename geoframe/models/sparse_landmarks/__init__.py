"""Sparse landmarks, learned without labels (thesis, chapter 4)."""

from geoframe.models.sparse_landmarks.evaluate import evaluate as evaluate
from geoframe.models.sparse_landmarks.evaluate import point_measures as point_measures
from geoframe.models.sparse_landmarks.predictor import Predictor as Predictor
from geoframe.models.sparse_landmarks.predictor import load as load
from geoframe.models.sparse_landmarks.predictor import train as train
from geoframe.models.sparse_landmarks.recipe import OURS as OURS
from geoframe.models.sparse_landmarks.recipe import PAPER as PAPER
from geoframe.models.sparse_landmarks.recipe import RECIPES as RECIPES
from geoframe.models.sparse_landmarks.recipe import SHIFTED as SHIFTED
from geoframe.models.sparse_landmarks.recipe import Recipe as Recipe

"""Continuous surface embeddings: for every pixel a place on a canonical surface (Neverova et al. 2020)."""

from geoframe.models.surface_embedding.evaluate import calibrate as calibrate
from geoframe.models.surface_embedding.evaluate import evaluate as evaluate
from geoframe.models.surface_embedding.evaluate import evaluate_each as evaluate_each
from geoframe.models.surface_embedding.network import SurfaceEmbedding as SurfaceEmbedding
from geoframe.models.surface_embedding.network import Target as Target
from geoframe.models.surface_embedding.network import Verdict as Verdict
from geoframe.models.surface_embedding.predictor import Predictor as Predictor
from geoframe.models.surface_embedding.predictor import load as load
from geoframe.models.surface_embedding.predictor import train as train
from geoframe.models.surface_embedding.recipe import FROZEN as FROZEN
from geoframe.models.surface_embedding.recipe import OURS as OURS
from geoframe.models.surface_embedding.recipe import PAPER as PAPER
from geoframe.models.surface_embedding.recipe import RECIPES as RECIPES
from geoframe.models.surface_embedding.recipe import Losses as Losses
from geoframe.models.surface_embedding.recipe import Recipe as Recipe

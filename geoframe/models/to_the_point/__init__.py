"""To The Point: one photograph to a posed, deformed, textured mesh (Kokkinos & Kokkinos 2021)."""

from geoframe.models.to_the_point.evaluate import evaluate as evaluate
from geoframe.models.to_the_point.predictor import Predictor as Predictor
from geoframe.models.to_the_point.predictor import Reconstruction as Reconstruction
from geoframe.models.to_the_point.predictor import load as load
from geoframe.models.to_the_point.predictor import train as train
from geoframe.models.to_the_point.recipe import OURS as OURS
from geoframe.models.to_the_point.recipe import PAPER as PAPER
from geoframe.models.to_the_point.recipe import RECIPES as RECIPES
from geoframe.models.to_the_point.recipe import Recipe as Recipe

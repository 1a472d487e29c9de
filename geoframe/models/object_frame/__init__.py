"""Object frames: each pixel a point of a common frame, learned without labels (thesis, chapters 5 to 7)."""

from geoframe.models.object_frame.evaluate import evaluate as evaluate
from geoframe.models.object_frame.evaluate import landmark_errors as landmark_errors
from geoframe.models.object_frame.predictor import Predictor as Predictor
from geoframe.models.object_frame.predictor import load as load
from geoframe.models.object_frame.predictor import train as train
from geoframe.models.object_frame.recipe import COMPRESSED as COMPRESSED
from geoframe.models.object_frame.recipe import DENSE as DENSE
from geoframe.models.object_frame.recipe import OURS as OURS
from geoframe.models.object_frame.recipe import RECIPES as RECIPES
from geoframe.models.object_frame.recipe import SYMMETRIC as SYMMETRIC
from geoframe.models.object_frame.recipe import Recipe as Recipe

"""Training: the loop, its schedule, checkpoints and logs."""

from geoframe.training.checkpoints import load_model as load_model
from geoframe.training.checkpoints import save_model as save_model
from geoframe.training.loop import Pictures as Pictures
from geoframe.training.loop import fit as fit
from geoframe.training.schedule import Schedule as Schedule
from geoframe.training.schedule import Scheduled as Scheduled

"""Training: the loop, its schedule, checkpoints and logs."""

from geoframe.training.loop import Schedule as Schedule
from geoframe.training.loop import fit as fit

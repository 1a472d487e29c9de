"""Fits of a template: to points in the image, and to masks."""

from geoframe.fitting._input import ImageLandmarks as ImageLandmarks
from geoframe.fitting.masks import TemplateFit as TemplateFit
from geoframe.fitting.masks import fit_template as fit_template
from geoframe.fitting.points import PointFit as PointFit
from geoframe.fitting.points import fit_points as fit_points

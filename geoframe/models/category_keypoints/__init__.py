"""Ordered, symmetric 3D keypoints of a category, learned without labels."""

from geoframe.models.category_keypoints.network import CategoryKeypoints as CategoryKeypoints
from geoframe.models.category_keypoints.predictor import Detector as Detector

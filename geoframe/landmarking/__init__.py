"""Landmarks of humans and animals, named by a network trained on the zoo."""

from geoframe.landmarking.predict import NamedLandmarks as NamedLandmarks
from geoframe.landmarking.predict import predict_landmarks as predict_landmarks

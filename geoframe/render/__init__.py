"""Rendering: which face a pixel sees, soft silhouettes, colours and textures, all differentiable."""

from geoframe.render.rasterize import Fragments as Fragments
from geoframe.render.rasterize import rasterize as rasterize
from geoframe.render.silhouette import soft_silhouette as soft_silhouette

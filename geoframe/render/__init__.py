"""Rendering: which face a pixel sees, colours, textures and light, soft silhouettes; all differentiable."""

from geoframe.render.dense import optical_flow as optical_flow
from geoframe.render.dense import vertex_visibility as vertex_visibility
from geoframe.render.images import sample_image as sample_image
from geoframe.render.rasterize import Fragments as Fragments
from geoframe.render.rasterize import antialias as antialias
from geoframe.render.rasterize import rasterize as rasterize
from geoframe.render.shade import image_texture as image_texture
from geoframe.render.shade import interpolate as interpolate
from geoframe.render.shade import lambert as lambert
from geoframe.render.shade import normal_map as normal_map
from geoframe.render.shade import paint as paint
from geoframe.render.shade import render as render
from geoframe.render.shade import shade as shade
from geoframe.render.shade import uv_texture as uv_texture
from geoframe.render.silhouette import soft_silhouette as soft_silhouette

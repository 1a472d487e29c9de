"""Cameras: how points of the world land on an image, and how other programs say the same."""

from geoframe.camera.cameras import Camera as Camera
from geoframe.camera.cameras import Pinhole as Pinhole
from geoframe.camera.cameras import WeakPerspective as WeakPerspective
from geoframe.camera.cameras import box_around as box_around
from geoframe.camera.cameras import look_at as look_at
from geoframe.camera.cameras import mirrored as mirrored
from geoframe.camera.cameras import pinhole_view as pinhole_view
from geoframe.camera.cameras import weak_view as weak_view
from geoframe.camera.formats import from_opencv as from_opencv
from geoframe.camera.formats import from_opengl as from_opengl
from geoframe.camera.formats import from_pytorch3d as from_pytorch3d
from geoframe.camera.formats import ndc_to_pixels as ndc_to_pixels
from geoframe.camera.formats import normalised_to_pixels as normalised_to_pixels
from geoframe.camera.formats import pixels_to_ndc as pixels_to_ndc
from geoframe.camera.formats import pixels_to_normalised as pixels_to_normalised
from geoframe.camera.formats import to_opencv as to_opencv
from geoframe.camera.formats import to_opengl as to_opengl
from geoframe.camera.formats import to_pytorch3d as to_pytorch3d

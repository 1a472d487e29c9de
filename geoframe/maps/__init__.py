"""Maps between surfaces: functional maps and vertex maps, fitting, refinement, quality and transfer.

Direction: `C_12` (K2, K1) sends functions on surface 1 to functions on surface 2. It belongs to the vertex map
`p2p_21` (V2,), which gives every vertex of surface 2 a vertex of surface 1: ``f2 = f1[p2p_21]``.
"""

from geoframe.maps.convert import fmap_to_p2p as fmap_to_p2p
from geoframe.maps.convert import p2p_to_fmap as p2p_to_fmap
from geoframe.maps.initial import fmap_from_descriptors as fmap_from_descriptors
from geoframe.maps.initial import fmap_from_landmarks as fmap_from_landmarks
from geoframe.maps.landmark_coordinates import landmark_coordinates as landmark_coordinates
from geoframe.maps.match import Match as Match
from geoframe.maps.match import match as match
from geoframe.maps.match import match_both_ways as match_both_ways
from geoframe.maps.precise import BarycentricMap as BarycentricMap
from geoframe.maps.precise import precise_map as precise_map
from geoframe.maps.quality import GeodesicDistortion as GeodesicDistortion
from geoframe.maps.quality import coverage as coverage
from geoframe.maps.quality import cycle_error as cycle_error
from geoframe.maps.quality import dirichlet_energy as dirichlet_energy
from geoframe.maps.quality import error_auc as error_auc
from geoframe.maps.quality import error_curve as error_curve
from geoframe.maps.quality import flipped_triangles as flipped_triangles
from geoframe.maps.quality import geodesic_error as geodesic_error
from geoframe.maps.quality import orthogonality as orthogonality
from geoframe.maps.shells import shell_refine as shell_refine
from geoframe.maps.transfer import transfer_functions as transfer_functions
from geoframe.maps.transfer import transfer_labels as transfer_labels
from geoframe.maps.transfer import transfer_landmarks as transfer_landmarks
from geoframe.maps.transfer import transfer_spectral as transfer_spectral
from geoframe.maps.transfer import transfer_uv as transfer_uv
from geoframe.maps.zoomout import ZoomoutResult as ZoomoutResult
from geoframe.maps.zoomout import zoomout as zoomout

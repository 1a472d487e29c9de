"""Pictures and pages: surfaces, maps, clouds, canonical surfaces."""

from geoframe.viz.canonical_page import draw_canonical as draw_canonical
from geoframe.viz.canonical_page import write_canonical_report as write_canonical_report
from geoframe.viz.clouds import draw_clouds as draw_clouds
from geoframe.viz.match_page import write_report as write_report
from geoframe.viz.surfaces import draw_match as draw_match
from geoframe.viz.surfaces import draw_surface as draw_surface
from geoframe.viz.surfaces import save_picture as save_picture

"""Pictures and pages: surfaces, maps, clouds, canonical surfaces, images."""

from geoframe.viz.annotate_page import write_annotation_page as write_annotation_page
from geoframe.viz.canonical_page import draw_canonical as draw_canonical
from geoframe.viz.canonical_page import write_canonical_report as write_canonical_report
from geoframe.viz.clouds import draw_clouds as draw_clouds
from geoframe.viz.images import contact_sheet as contact_sheet
from geoframe.viz.images import draw_correspondence as draw_correspondence
from geoframe.viz.images import draw_pixel_map as draw_pixel_map
from geoframe.viz.images import draw_points as draw_points
from geoframe.viz.images import draw_values as draw_values
from geoframe.viz.match_page import write_report as write_report
from geoframe.viz.pixel_page import write_pixel_page as write_pixel_page
from geoframe.viz.surfaces import canonical_colors as canonical_colors
from geoframe.viz.surfaces import draw_match as draw_match
from geoframe.viz.surfaces import draw_surface as draw_surface
from geoframe.viz.surfaces import save_picture as save_picture

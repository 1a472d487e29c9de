"""Data sets as dicts of tensors: real layouts, and seeded synthetic ones."""

from geoframe.data.clouds import CloudBatches as CloudBatches
from geoframe.data.clouds import CloudSet as CloudSet
from geoframe.data.clouds import damage as damage
from geoframe.data.clouds import misalign as misalign
from geoframe.data.clouds import normalise as normalise
from geoframe.data.layouts import cloud_files as cloud_files
from geoframe.data.layouts import clouds_from_pyg as clouds_from_pyg
from geoframe.data.layouts import has_splits as has_splits
from geoframe.data.layouts import known_up as known_up
from geoframe.data.layouts import load_cloud as load_cloud
from geoframe.data.layouts import load_clouds as load_clouds

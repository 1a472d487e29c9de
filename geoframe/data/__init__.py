"""Data sets as dicts of tensors: real layouts, and seeded synthetic ones."""

from geoframe.data.cloud_files import clouds_from_pyg as clouds_from_pyg
from geoframe.data.cloud_files import has_splits as has_splits
from geoframe.data.cloud_files import known_up as known_up
from geoframe.data.cloud_files import list_cloud_files as list_cloud_files
from geoframe.data.cloud_files import load_cloud as load_cloud
from geoframe.data.cloud_files import load_clouds as load_clouds
from geoframe.data.clouds import CloudBatches as CloudBatches
from geoframe.data.clouds import CloudSet as CloudSet
from geoframe.data.clouds import corrupt as corrupt
from geoframe.data.clouds import normalise as normalise
from geoframe.data.clouds import rotate_randomly as rotate_randomly

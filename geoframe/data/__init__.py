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
from geoframe.data.coco_files import read_coco as read_coco
from geoframe.data.coco_files import write_coco as write_coco
from geoframe.data.crops import Crop as Crop
from geoframe.data.image_files import ImageItem as ImageItem
from geoframe.data.image_files import ImageSet as ImageSet
from geoframe.data.image_files import box_of_mask as box_of_mask
from geoframe.data.image_files import image_size as image_size
from geoframe.data.image_files import list_images as list_images
from geoframe.data.image_files import read_image as read_image
from geoframe.data.image_files import read_mask as read_mask
from geoframe.data.image_files import read_points as read_points
from geoframe.data.image_files import write_points as write_points
from geoframe.data.masks import RunLengths as RunLengths

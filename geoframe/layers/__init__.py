"""Bricks of networks: point features, node branch, poses, low-rank shape bases. Channels are last."""

from geoframe.layers.basis import KeypointBasis as KeypointBasis
from geoframe.layers.harmonics import HarmonicPose as HarmonicPose
from geoframe.layers.mlp import BatchNorm as BatchNorm
from geoframe.layers.mlp import linear as linear
from geoframe.layers.mlp import shared_mlp as shared_mlp
from geoframe.layers.nodes import NodeBranch as NodeBranch
from geoframe.layers.nodes import farthest_nodes as farthest_nodes
from geoframe.layers.points import box as box
from geoframe.layers.points import check_clouds as check_clouds
from geoframe.layers.points import gather_rows as gather_rows
from geoframe.layers.points import nearest_sq as nearest_sq
from geoframe.layers.pose import GlobalBranch as GlobalBranch
from geoframe.layers.pose import PoseCoefficientBranch as PoseCoefficientBranch
from geoframe.layers.rotation import six_to_rotation as six_to_rotation
from geoframe.layers.rotation import turn as turn
from geoframe.layers.rotation import turn_by as turn_by

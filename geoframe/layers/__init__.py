"""Bricks of networks: point features, node branch, poses, low-rank shape bases, embeddings. Channels are last."""

from geoframe.layers.basis import KeypointBasis as KeypointBasis
from geoframe.layers.basis import symmetry_frame as symmetry_frame
from geoframe.layers.harmonics import HarmonicPose as HarmonicPose
from geoframe.layers.mlp import BatchNorm as BatchNorm
from geoframe.layers.mlp import linear as linear
from geoframe.layers.mlp import shared_mlp as shared_mlp
from geoframe.layers.nodes import NodeBranch as NodeBranch
from geoframe.layers.nodes import farthest_nodes as farthest_nodes
from geoframe.layers.pose import GlobalBranch as GlobalBranch
from geoframe.layers.pose import PoseCoefficientBranch as PoseCoefficientBranch
from geoframe.layers.vertex_embedding import SharedEmbedding as SharedEmbedding
from geoframe.layers.vertex_embedding import VertexEmbedding as VertexEmbedding

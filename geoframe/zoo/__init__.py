"""Families of surfaces with exact correspondence: animals, rigid categories, a human head."""

from geoframe.zoo.animals import Animal as Animal
from geoframe.zoo.animals import Correspondence as Correspondence
from geoframe.zoo.animals import animal as animal
from geoframe.zoo.animals import correspondence as correspondence
from geoframe.zoo.animals import joint_angles as joint_angles
from geoframe.zoo.animals import joints as joints
from geoframe.zoo.animals import landmark_names as landmark_names
from geoframe.zoo.animals import species as species
from geoframe.zoo.face import EXPRESSIONS as EXPRESSIONS
from geoframe.zoo.face import sample_head as sample_head
from geoframe.zoo.poses import draw_pose as draw_pose
from geoframe.zoo.poses import pose_names as pose_names
from geoframe.zoo.rig import pose_template as pose_template
from geoframe.zoo.rigid import CATEGORIES as CATEGORIES
from geoframe.zoo.rigid import part_names as part_names
from geoframe.zoo.rigid import sample as sample
from geoframe.zoo.rigid import sample_points as sample_points
from geoframe.zoo.template import Member as Member
from geoframe.zoo.template import MemberMesh as MemberMesh
from geoframe.zoo.template import counterpart as counterpart
from geoframe.zoo.template import member_correspondence as member_correspondence
from geoframe.zoo.template import surface_mesh as surface_mesh
from geoframe.zoo.template import surface_points as surface_points
from geoframe.zoo.textures import coat as coat
from geoframe.zoo.textures import texture as texture

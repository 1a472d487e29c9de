"""Families of surfaces with exact correspondence: animals, rigid categories, a human head."""

from geoframe.zoo.animals import Animal as Animal
from geoframe.zoo.animals import Correspondence as Correspondence
from geoframe.zoo.animals import animal as animal
from geoframe.zoo.animals import correspondence as correspondence
from geoframe.zoo.animals import joint_angles as joint_angles
from geoframe.zoo.animals import joints as joints
from geoframe.zoo.animals import landmark_names as landmark_names
from geoframe.zoo.animals import species as species
from geoframe.zoo.textures import coat as coat
from geoframe.zoo.textures import texture as texture

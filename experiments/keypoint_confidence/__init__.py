"""What category keypoints do with clouds that are not clean, and whether they know when they fail."""

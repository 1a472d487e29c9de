"""Category keypoints: the paper's table 1 and figures 3 to 5."""

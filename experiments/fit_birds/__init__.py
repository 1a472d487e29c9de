"""Fits of a bird template to real photographs: keypoints, masks, both."""

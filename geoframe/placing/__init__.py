"""Where the object of a cloud is, and how sure its keypoints are: outliers, pose, tilt, box, evidence, calibration."""

from pathlib import Path

CATEGORY_MODELS = Path(__file__).parent / "categories"  # models of procedural categories, one a folder

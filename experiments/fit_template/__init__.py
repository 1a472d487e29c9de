"""A template turned and deformed, found again from its silhouettes."""

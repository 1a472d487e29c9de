"""Families of surfaces with exact correspondence: animals, rigid categories, a human head."""

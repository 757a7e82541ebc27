"""Configurations: which changes are legal, their encoding, and taking one into use."""

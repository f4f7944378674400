"""Containers described in TOML files."""

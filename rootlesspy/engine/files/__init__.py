"""The files of containers: copied, compared, exported, committed."""

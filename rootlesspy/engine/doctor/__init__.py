"""What the machine lacks, and the cures."""

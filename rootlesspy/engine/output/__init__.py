"""What containers print and what happens to them: written, kept, read again."""

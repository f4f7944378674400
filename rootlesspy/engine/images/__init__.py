"""Images made, mounted and removed, where containers have a say."""

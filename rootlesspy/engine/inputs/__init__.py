"""What a container is asked to be: texts parsed to a RunRequest."""

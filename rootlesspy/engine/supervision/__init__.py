"""What stands beside a running container: its start, its supervisor, the supervisor's clients."""

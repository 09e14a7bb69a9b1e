"""What is told of requests: the log of what was answered, counts, lines and spans."""

"""What callers speak: bodies to rows and answers to bodies, a module for each protocol."""

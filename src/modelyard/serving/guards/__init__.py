"""What is refused, changed or held back on the way to the model and from it, by the policy that is declared."""

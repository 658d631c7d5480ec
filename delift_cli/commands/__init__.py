"""argv in, what a person sees out: one module a verb, which parses, calls and prints, and computes nothing."""

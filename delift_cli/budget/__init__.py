"""What is known in, the pairs to score next out; scored pairs in, estimates of the others out, and how good they are.

A selection needs the estimates without llama.cpp: `estimate` and what it imports do not run the model.
"""

"""The parts of `tools/fuzz.py`: odd inputs, the place where they are tried, and the judgment of what came of them."""

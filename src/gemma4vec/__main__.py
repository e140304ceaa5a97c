"""`python -m gemma4vec` is the command `gemma4vec`."""

from gemma4vec.cli.main import run

if __name__ == "__main__":
    run()

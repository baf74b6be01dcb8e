"""`python -m torchplastic` is the command `plastic`."""

from torchplastic.cli import main

if __name__ == "__main__":
    main()

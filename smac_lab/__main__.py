"""`python -m smac_lab` is the `smac-lab` command."""

from smac_lab.cli import main

if __name__ == "__main__":
    main()

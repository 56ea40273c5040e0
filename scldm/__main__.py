"""``python -m scldm``: the command line."""

from scldm.cli import main

if __name__ == "__main__":
    main()

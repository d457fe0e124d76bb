"""`python -m exmem`: the command line."""

from exmem.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m sage.cli` is `sage`."""

from sage.cli.main import main

if __name__ == "__main__":
    main()

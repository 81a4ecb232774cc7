"""python -m tusd_py is tusd-py."""

from .cli import main

if __name__ == "__main__":
    main()

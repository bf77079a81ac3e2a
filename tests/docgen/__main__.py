"""`python -m docgen` brings every generated page up to date."""

from docgen.pages import write

if __name__ == "__main__":
    write()

"""The table of settings in README.md, made from settings.py. To update it: python -m tests.support.readme"""

from pathlib import Path

from tusd_py.settings import SETTINGS, build, flag, variable

README = Path(__file__).parents[2] / "README.md"
HEAD = "| flag | variable | default | what |\n|---|---|---|---|\n"


def table() -> str:
    """Return the table for the current settings."""
    rows = []
    for name, one in SETTINGS.items():
        default = f"`{build(one.default)}`" if build(one.default) else ""
        cells = f"`{flag(name)} {one.metavar}`", f"`{variable(name)}`", default, one.help
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n")
    return HEAD + "".join(rows)


def table_in(text: str) -> str:
    """Return the table in a text."""
    start = text.index(HEAD)
    return text[start : text.index("\n\n", start) + 1]


if __name__ == "__main__":
    text = README.read_text()
    README.write_text(text.replace(table_in(text), table()))

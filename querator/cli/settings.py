"""``querator config show``."""

from typing import Annotated

import attrs
from cyclopts import App, Parameter

from querator import config
from querator.cli.output import print_json, print_table

app = App(name="config", help="The settings that a command here and now would use.")


@app.command
def show(
    *,
    origin: Annotated[
        bool, Parameter(negative="", help="Also where each value comes from: variable, file or default.")
    ] = False,
    json: Annotated[bool, Parameter(negative="", help="Print JSON, one document.")] = False,
) -> None:
    """Every setting, its value, and with --origin where that comes from. Secrets are hidden."""
    # Also what is secret is shown as text that hides it.
    values = [attrs.evolve(value, text=str(value.text)) for value in config.load().values]
    if json:
        print_json(
            {
                value.name: {"value": value.text, "origin": value.origin} if origin else value.text
                for value in values
            }
        )
        return
    columns = ("SETTING", "VALUE", "ORIGIN", "MEANING") if origin else ("SETTING", "VALUE", "MEANING")
    print_table(
        columns,
        [
            (value.name, value.text or "-", *((value.origin,) if origin else ()), value.help)
            for value in values
        ],
    )

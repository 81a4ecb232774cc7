"""The HTML pages. All text from outside is escaped."""

from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 3rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .5rem .75rem; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: GrayText; }
a { color: LinkText; }
.done { color: #1a8a3a; } .failed, .broken { color: #c8342b; } .waiting { color: #b07400; }
"""


def page(title: str, content: str, *, refresh: bool) -> str:
    """Return a whole page; with refresh the browser reloads it every 2 s."""
    reload = '<meta http-equiv="refresh" content="2">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{reload}<title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1>{content}</html>"
    )


def listing(found: Sequence[dict[str, Any]]) -> str:
    """Return the page with all assessments."""
    if not found:
        return page("Assessments", "<p>No assessments yet. Upload a video.</p>", refresh=True)
    rows = "".join(row(one) for one in found)
    head = "<tr><th>Video<th>Duration<th>Resolution<th>Frames/s<th>Codec<th>State</tr>"
    waiting = any(one["state"] == "waiting" for one in found)
    return page("Assessments", f"<table>{head}{rows}</table>", refresh=waiting)


def row(one: dict[str, Any]) -> str:
    """Return one line of the list."""
    link = f'<a href="/assessments/{escape(one["id"])}">{escape(one["filename"] or one["upload_id"])}</a>'
    seen = one["assessment"]
    if not seen:
        return f"<tr><td>{link}<td><td><td><td><td>{state(one)}</tr>"
    return (
        f"<tr><td>{link}<td>{seen['duration_s']:.2f} s<td>{seen['width']} x {seen['height']}"
        f"<td>{seen['frame_rate']:g}<td>{escape(seen['video_codec'])}<td>{state(one)}</tr>"
    )


def state(one: dict[str, Any]) -> str:
    """Return the state of an assessment in words."""
    if one["state"] == "done" and not one["assessment"]["decodes_to_end"]:
        return '<span class="broken">does not decode to the end</span>'
    words = {"done": "decodes to the end", "failed": escape(one["reason"]), "waiting": "waiting"}
    return f'<span class="{one["state"]}">{words[one["state"]]}</span>'


def one(found: dict[str, Any]) -> str:
    """Return the page of one assessment."""
    facts = {"State": state(found), "Upload": escape(found["upload_id"]), "Size": f"{found['size']} bytes"}
    facts |= {
        name.replace("_", " ").capitalize(): escape(", ".join(value) if isinstance(value, list) else str(value))
        for name, value in (found["assessment"] or {}).items()
        if value not in ("", [])
    }
    rows = "".join(f"<tr><th>{name}<td>{value}</tr>" for name, value in facts.items())
    content = f'<table>{rows}</table><p><a href="/assessments">All assessments</a></p>'
    return page(found["filename"] or found["upload_id"], content, refresh=found["state"] == "waiting")

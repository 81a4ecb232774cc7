"""The figures as tables in Markdown and as a bar chart."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

from .contenders import BARE
from .scenarios import Scenario


class Figures(Protocol):
    """The figures of one scenario on one server; see Measured."""

    @property
    def per_s(self) -> float: ...
    @property
    def cpu(self) -> float: ...
    @property
    def peak_mib(self) -> float: ...
    @property
    def client_share(self) -> float: ...


Results = Mapping[tuple[str, str], Figures]


def table(
    results: Results, scenarios: Sequence[Scenario], names: Sequence[str], machine: str, rounds: int, mib: int
) -> str:
    """Return the text of benchmarks/README.md without the growth table; machine: the description of the machine."""
    parts = [
        "# Benchmarks\n",
        "    pip install '.[benchmarks]' && python -m benchmarks\n",
        f"Medians of {rounds} rounds, in which the servers take turns, with a file of {mib} MiB, on one machine:",
        f"{machine}. The client sends with sendfile from the page cache; the last column is its share of one core.",
        "CPU is the server's own, in seconds per GiB or milliseconds per request, without Redis. With `fsync` tusd_py",
        "flushes before it acknowledges an offset, which no other server here does; `none` is comparable with them.",
        "The bare splice loop is not a server: it shows the upper limit for one client.\n",
        "![One big PATCH](chart.svg)\n",
    ]
    for scenario in scenarios:
        cpu = "s/GiB" if scenario.unit == "MiB" else "ms each"
        parts += [
            f"## {scenario.name}\n",
            (scenario.run.__doc__ or "") + "\n",
            f"| server | {scenario.unit}/s | CPU, {cpu} | peak memory, MiB | client, cores |",
            "|---|---:|---:|---:|---:|",
        ]
        for name in names:
            found = results.get((scenario.name, name))
            if not found and name == BARE:
                continue
            row = (
                f"{found.per_s:,.0f} | {found.cpu:.2f} | {found.peak_mib:.0f} | {found.client_share:.2f}"
                if found
                else "failed | | |"
            )
            parts.append(f"| {name} | {row} |")
        parts.append("")
    return "\n".join(parts)


def chart(results: Results, scenario: Scenario, names: Sequence[str]) -> str:
    """Return an SVG with a bar for each server: its units per second."""
    found = [(name, results[scenario.name, name].per_s) for name in names if (scenario.name, name) in results]
    longest = max((value for _, value in found), default=1.0)
    rows = []
    for n, (name, value) in enumerate(found):
        y, width = 40 + n * 30, 380 * value / longest
        colour = "#3b6fd4" if name.startswith("tusd_py") else "#9aa3b2"
        rows.append(
            f'<text x="250" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="260" y="{y}" width="{width:.0f}" height="20" rx="3" fill="{colour}"/>'
            f'<text x="{266 + width:.0f}" y="{y + 15}">{value:,.0f}</text>'
        )
    height = 50 + len(found) * 30
    style = "text{font:13px system-ui,sans-serif;fill:#222}@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    title = f'<text x="260" y="24" style="font-weight:600">{escape(scenario.name)}, {scenario.unit}/s</text>'
    size = f'width="720" height="{height}" viewBox="0 0 720 {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{title}{"".join(rows)}</svg>\n'

"""results.json and table.md: means over the seeds, with the spread, as far as runs are done."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from geoframe._files import atomic_path, to_json
from geoframe.metrics.clouds import PUBLISHED

Found = Mapping[tuple[str, str, int], Mapping[str, float]]
TABLE_1 = (
    "coverage_percent",
    "model_error_percent",
    "correspondence_percent",
    "inclusivity_percent",
    "symmetry_error_deg",
    "n_keypoints",
)
TABLES = {
    "Table 1": TABLE_1,
    "Registration (figure 5): median and mean relative rotation error in degrees": (
        "registration_median_deg",
        "registration_mean_deg",
        "registration_any_axis_median_deg",
        "registration_any_axis_mean_deg",
    ),
    "Real repeatability and parts": (
        "repeatability_percent",
        "correspondence_distance",
        "semantic_consistency_percent",
        "dual_alignment_percent",
        "distance_to_surface",
        "inclusivity_surface_percent",
    ),
    "How far keypoints move, at scale 2": (
        "moved_by_unknown_box",
        "moved_by_missing_30_percent",
        "moved_by_missing_30_percent_unknown_box",
        "moved_by_noise_2_percent",
        "moved_by_noise_2_percent_unknown_box",
    ),
}


def summary(found: Found) -> dict[tuple[str, str], dict[str, float]]:
    """Of every (category, variant): means over the seeds, with more than one also NAME_spread, and `seeds`.

    The spread is the standard deviation of a sample.
    """
    groups: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for (category, variant, _), numbers in found.items():
        groups.setdefault((category, variant), []).append(numbers)
    out = {}
    for key, runs in groups.items():
        row: dict[str, float] = {}
        for name in runs[0]:
            values = [r[name] for r in runs]
            row[name] = statistics.fmean(values)
            if len(runs) > 1 and name != "epochs":
                row[f"{name}_spread"] = statistics.stdev(values)
        out[key] = row | {"seeds": float(len(runs))}
    return out


def markdown(rows: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    """One table after the other, without columns and rows that have no number."""
    text = []
    for title, names in TABLES.items():
        columns = [n for n in names if any(n in row for row in rows.values())]
        if not columns:
            continue
        heads = ["category", "method", "epochs", "seeds", *(c.replace("_", " ") for c in columns)]
        text += [f"## {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for category in dict.fromkeys(c for c, _ in rows):
            for (owner, variant), row in rows.items():
                if owner == category and any(c in row for c in columns):
                    cells = [f"{row['epochs']:g}", f"{row['seeds']:g}", *(_cell(row, c) for c in columns)]
                    text.append(f"| {category} | {variant} | {' | '.join(cells)} |")
            if names is TABLE_1 and category in PUBLISHED:
                cells = ["", "", *(f"{x:g}" for x in PUBLISHED[category])]
                text.append(f"| {category} | published | {' | '.join(cells)} |")
        text.append("")
    return "\n".join(text)


def _cell(row: Mapping[str, float], name: str) -> str:
    if name not in row:
        return ""
    spread = f" ± {row[f'{name}_spread']:.2g}" if f"{name}_spread" in row else ""
    return f"{row[name]:.3g}{spread}"


def write_tables(out: Path, found: Found) -> None:
    """Replace results.json and table.md in `out`."""
    rows = summary(found)
    flat = {f"{c}/{v}/{name}": x for (c, v), row in rows.items() for name, x in row.items()}
    with atomic_path(out / "results.json") as temporary:
        temporary.write_text(to_json(flat), encoding="utf-8")
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(markdown(rows), encoding="utf-8")

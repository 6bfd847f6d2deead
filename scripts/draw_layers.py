"""Draw the imports between the rooms of `smac_lab` as SVG.

python scripts/draw_layers.py > layers.svg
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
CELL, LEFT, TOP = 19, 118, 112


def layers() -> list[list[str]]:
    """Return the rooms of each layer, highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(one for one in contracts if one["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]


def imports() -> Counter[tuple[str, str]]:
    """Count the imports between rooms: (importing, imported) to number."""
    rooms, found = {room for layer in layers() for room in layer}, set()
    for file in sorted((ROOT / "smac_lab").rglob("*.py")):
        module = file.relative_to(ROOT / "smac_lab").with_suffix("").parts
        for node in ast.walk(ast.parse(file.read_text())):
            for target in targets(node):
                if module[0] in rooms and target[0] in rooms and target[0] != module[0]:
                    found.add((module, target[: 2 if is_module(target[:2]) else 1]))
    return Counter((importer[0], imported[0]) for importer, imported in found)


def targets(node: ast.AST) -> list[tuple[str, ...]]:
    """Return the names that a statement imports from `smac_lab`, as parts."""
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [[*node.module.split("."), alias.name] for alias in node.names]
    else:
        return []
    return [tuple(name[1:]) for name in names if name[0] == "smac_lab" and len(name) > 1]


def is_module(parts: tuple[str, ...]) -> bool:
    place = ROOT / "smac_lab" / Path(*parts)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def svg() -> str:
    """Return the picture: a row per importing room, a column per imported room, dots for imports."""
    stack, counts = layers(), imports()
    rooms = [room for layer in stack for room in layer]
    width, height = LEFT + len(rooms) * CELL + 4, TOP + len(rooms) * CELL + 4
    place = {room: i for i, room in enumerate(rooms)}
    drawn, row = [], 0
    for layer in stack:
        side, y = len(layer) * CELL, TOP + row * CELL
        drawn.append(
            f'<rect x="{LEFT + row * CELL}" y="{y}" width="{side}" height="{side}" fill="#7f7f7f" fill-opacity=".3"/>'
            f'<path d="M0 {y}H{width - 4}" stroke="#7f7f7f" stroke-opacity=".35"/>'
        )
        row += len(layer)
    for room, i in place.items():
        x, y = LEFT + (i + 0.5) * CELL, TOP + (i + 0.5) * CELL
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{room}</text>')
        drawn.append(f'<text transform="translate({x + 4} {TOP - 6}) rotate(-90)">{room}</text>')
    for (importer, imported), count in sorted(counts.items()):
        x, y = LEFT + (place[imported] + 0.5) * CELL, TOP + (place[importer] + 0.5) * CELL
        said = escape(
            f"{importer} imports {imported}: {count} modules" if count > 1 else f"{importer} imports {imported}"
        )
        radius = f"{min(2.5 + count**0.5, 7):.1f}"
        drawn.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="#0072B2"><title>{said}</title></circle>')
    about = f"{len(rooms)} rooms in {len(stack)} layers; every dot lies right of the diagonal: imports go down only."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{about}" '
        f'style="width:100%;min-width:520px;max-width:{width}px;height:auto;font:12px system-ui,sans-serif" '
        f'fill="currentColor">{"".join(drawn)}</svg>'
    )


if __name__ == "__main__":
    print(svg())

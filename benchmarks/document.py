"""A report as a list of blocks, written as Markdown or as one page of HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_STYLE = (Path(__file__).parent / "page.css").read_text


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Items:
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture as SVG; Markdown, which cannot hold it, names what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Folded:
    """What is there to look up: folded away in HTML, left out of Markdown."""

    title: str
    blocks: tuple[Block, ...]


Block = Heading | Text | Items | Table | Figure | Folded


def parse(markdown: str) -> list[Block]:
    """Blocks of Markdown that has headings, lists, tables and paragraphs alone."""
    blocks: list[Block] = []
    for part in re.split(r"\n\s*\n", markdown.strip()):
        lines = [line.rstrip() for line in part.strip("\n").splitlines() if line.strip()]
        while lines and lines[0].startswith("#"):
            level = len(lines[0]) - len(lines[0].lstrip("#"))
            blocks.append(Heading(lines.pop(0).lstrip("# "), level))
        # a paragraph may stand right above a table or a list
        while lines:
            kind = _kind(lines[0])
            count = next((i for i, line in enumerate(lines) if _kind(line) != kind), len(lines))
            taken, lines = lines[:count], lines[count:]
            if kind == "|":
                cells = [
                    _cells(line)
                    for line in taken
                    if not re.fullmatch(r"(\|\s*:?-{3,}:?\s*)+\|", line.strip())
                ]
                blocks.append(Table(cells[0], tuple(cells[1:])))
            elif kind == "-":
                blocks.append(Items(tuple(line.lstrip("-* ") for line in taken)))
            else:
                blocks.append(Text(" ".join(line.strip() for line in taken)))
    return blocks


def to_markdown(blocks: Iterable[Block]) -> str:
    """Headings, aligned tables and lists; figures by their captions."""
    from .report import aligned

    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {text}")
            case Text(text):
                parts.append(text)
            case Items(lines):
                parts.append("\n".join(f"- {line}" for line in lines))
            case Table(head, lines):
                parts.append(aligned([head, *lines]))
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Iterable[Block]) -> str:
    """One page without references to anything outside of it."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE()}</style>\n</head>\n<body>\n"
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
            return f'<h{level} id="{name}">{html.escape(text)}</h{level}>'
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Items(lines):
            return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        case Table(head, lines):
            return _table(head, lines)
        case Figure(svg, caption):
            return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"
        case Folded(title, blocks):
            inner = "\n".join(_html(inside) for inside in blocks)
            return f"<details><summary>{html.escape(title)}</summary>\n{inner}\n</details>"


def _table(head: tuple[str, ...], lines: tuple[tuple[str, ...], ...]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join(
        "<tr>"
        + "".join(f"<td{_mark(i, cell)}>{html.escape(cell)}</td>" for i, cell in enumerate(line))
        + "</tr>\n"
        for line in lines
    )
    return (
        f'<div class="table"><table><thead><tr>{top}</tr></thead>\n<tbody>{rows}</tbody>'
        "</table></div>"
    )


def _mark(column: int, cell: str) -> str:
    """Numbers to the right; what is wrong, missed or absent looks different."""
    if cell in ("-", ""):
        return ' class="none"'
    if cell in ("wrong", "failed", "slower") or cell.endswith("NO"):
        return ' class="bad"'
    if cell in ("not run", "too slow"):
        return ' class="skipped"'
    return ' class="number"' if column and cell[0] in "0123456789-+." else ""


def _kind(line: str) -> str:
    start = line.lstrip()[:2]
    return "|" if start.startswith("|") else "-" if start in ("- ", "* ") else " "


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))

"""Every SQL statement of the code, found in its modules: for the tests that hold it to a grammar.

Statements that are built when a module is imported are taken as they are then; those that a function builds from pieces
are put together here, with each piece that is known only when the function runs replaced by a sample.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "audit", "connectors", "dataflows", "demo", "fanline", "readmodels", "rebuild", "sinks")

VERBS = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "ALTER", "CREATE", "DROP", "GRANT", "TRUNCATE", "LOCK", "COPY",
    "UPSERT", "VALUES", "REINDEX", "VACUUM", "CALL", "LISTEN", "NOTIFY", "MERGE", "DO", "SET",
)  # fmt: skip
_STARTS = re.compile(rf"\s*(?:{'|'.join(VERBS)})\s")
_GOES_ON = re.compile(
    r"\s*(?:AND|OR|NOT|EXISTS|WHERE|JOIN|LEFT JOIN|UNION|ORDER BY|LIMIT|OFFSET|ON CONFLICT|RETURNING)\s*[\w({]"
)
# English that begins with a verb of SQL, in capitals, is not expected; settings of storage parameters are.
_NO_STATEMENT = re.compile(r"\s*WITH \(ttl")
_PARAMETER = re.compile(r"%\((\w+)\)[sb]|%s")
_PIECE = re.compile(r"\{(\w*)\}")

# Pieces that are known only when a function runs, by the name that they have there.
SAMPLES = {
    "table": "posts", "assignments": "updated_at = now()", "columns": "(id)", "key": "id", "over": "true",
    "source": "posts p", "condition": "true", "shown": "true", "order": "DESC",
    "where": "true", "beyond": "<", "": "posts",
}  # fmt: skip


@dataclass(frozen=True)
class Statement:
    """One statement: where it is, and its text with parameters as NULL."""

    file: str
    line: int
    text: str
    name: str = ""


def statements() -> list[Statement]:
    """Every statement of the code."""
    return [found for path in _paths() for found in _of_file(path)]


def fragments() -> Iterator[Statement]:
    """Texts of the code that only go on with a statement, in the parts between what is put into them."""
    for path in _paths():
        for node in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            if _GOES_ON.match(_rough(node)):
                parts = [node] if isinstance(node, ast.Constant) else [p for p in node.values if _is_text(p)]
                for part in (text for each in parts for text in _PIECE.split(each.value) if text.strip()):
                    yield Statement(str(path.relative_to(ROOT)), node.lineno, part)


def _paths() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if path.stem != "__main__"]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def constants() -> list[Statement]:
    """Every statement that a module has when it is imported, whatever it was put together from."""
    return [found for path in _paths() for found in _constants_of(path)]


def _constants_of(path: Path) -> Iterator[Statement]:
    file = path.relative_to(ROOT)
    names = vars(importlib.import_module(".".join(file.with_suffix("").parts)))
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            value = names.get(target.id) if isinstance(target, ast.Name) else None
            if isinstance(value, str) and _STARTS.match(value) and not _NO_STATEMENT.match(value):
                yield Statement(str(file), node.lineno, plain(value), ast.unparse(target))


def _of_file(path: Path) -> Iterator[Statement]:
    name = path.relative_to(ROOT).with_suffix("")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = list(_texts(tree))
    if not any(_STARTS.match(_rough(node)) for node in texts):
        return
    names = vars(importlib.import_module(".".join(name.parts)))
    for node in texts:
        if _STARTS.match(_rough(node)) and not _NO_STATEMENT.match(_rough(node)):
            yield Statement(str(path.relative_to(ROOT)), node.lineno, plain(_text(node, names)))


def _texts(tree: ast.AST) -> Iterator[Any]:
    """Texts and formatted texts that are no docstrings and no part of another one."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if (_is_text(node) or isinstance(node, ast.JoinedStr)) and id(node) not in skipped:
            yield node


def _rough(node: Any) -> str:
    return (
        node.value
        if isinstance(node, ast.Constant)
        else "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
    )


def _text(node: Any, names: dict[str, Any]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(part.value if isinstance(part, ast.Constant) else _piece(part.value, names) for part in node.values)


def _piece(node: ast.expr, names: dict[str, Any]) -> str:
    source = ast.unparse(node)
    if isinstance(node, ast.Name) and node.id not in names:
        return SAMPLES.get(source, f"{{{source}}}")
    # The module's own expression, over what the module has when it is imported.
    return str(eval(source, dict(names)))


def plain(text: str) -> str:
    """A statement with parameters as NULL, and samples for the pieces that it leaves open."""
    text = _PIECE.sub(lambda match: SAMPLES.get(match[1], match[0]), text)
    return _PARAMETER.sub("NULL", text).replace("%%", "%")

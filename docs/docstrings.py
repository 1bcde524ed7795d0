"""For the reference pages: turns what our docstrings have of reStructuredText into Markdown."""

import re

import griffe

ROLE = re.compile(r":(?:class|meth|func|data|attr|mod):`~?([^`]+)`")
RULE = re.compile(r"=+(?: +=+)+")


class Markdown(griffe.Extension):
    """Rewrites roles, ``Example::`` and simple tables before the docstrings are parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", obj.docstring.value)
            text = re.sub(r"^(\s*)Example::$", r"\1**Example**", text, flags=re.MULTILINE)
            obj.docstring.value = tables(text)


def tables(text: str) -> str:
    """Return ``text`` with its simple tables as Markdown tables.

    The rules of ``=`` say where a column begins; the first row is the heading.
    """
    lines, columns, rows = [], [], 0
    for line in text.split("\n"):
        if RULE.fullmatch(line.strip()):
            columns = [match.start() for match in re.finditer("=+", line)]
            if rows == 1:
                lines.append("|" + " --- |" * len(columns))
            elif rows:  # the last rule: the table is at an end
                columns, rows = [], 0
            continue
        if columns and line.strip():
            cells = [line[start:end].strip() for start, end in zip(columns, [*columns[1:], None], strict=True)]
            lines.append("| " + " | ".join(cells) + " |")
            rows += 1
            continue
        lines.append(line)
    return "\n".join(lines)

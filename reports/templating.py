"""Pages from templates: texts that are filled in are escaped, and nothing but our scripts runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from reference_model.printing import clean

# Nothing comes from outside, and no text is run: not as an element, not as an attribute, not by
# eval. The icon is an empty data: address, without which a browser asks the server for one.
POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
ICON = '<link rel="icon" href="data:,">'
ENDS_EARLY = re.compile(r"</(?:script|style)|<!--|<script", re.IGNORECASE)


def templates(*folders: Path) -> Environment:
    """The templates of these folders; of two with one name, the earlier folder's.

    A text that is missing is an error, and what would steer the reader's eye is spelled out.
    """
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(
    template: Template,
    view: Mapping[str, Any],
    *,
    styles: Sequence[str],
    scripts: Sequence[str] = (),
    later: Sequence[str] = (),
) -> str:
    """``template`` filled in, with a Content-Security-Policy that knows only these texts.

    The template has ``{{ head }}`` in its head, below the character set, and ``{{ scripts }}`` at
    its end; it has no style, script or handler of its own, which would not take effect. ``later``
    are scripts that one of ``scripts`` puts on the page, such as a library, once it is shown.
    """
    sheet, program = _inside("\n".join(styles)), _inside("\n".join(scripts))
    policy = f"{POLICY}; style-src {_hash(sheet)}"
    if program:
        policy += f"; script-src {' '.join(map(_hash, [program, *later]))}"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{ICON}\n'
    return template.render(
        view,
        head=Markup(f"{head}<style>{sheet}</style>"),
        scripts=Markup(f"<script>{program}</script>" if program else ""),
    )


def _inside(text: str) -> str:
    """A text that an element of a page can hold as it is."""
    if found := ENDS_EARLY.search(text):
        raise ValueError(f"a style or script holds {found[0]!r}, where a browser would end it")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _cleaned(value: Any) -> Any:
    return clean(value, lines=True) if type(value) is str else value  # Markup is ours

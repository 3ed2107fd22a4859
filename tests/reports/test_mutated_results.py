"""Whatever lies in a results file: it is read or refused in one line, and never becomes markup."""

import copy
import json
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_model.errors import UserError
from reports.export import as_csv
from reports.reading import read
from reports.render.drawing import script_bundle
from reports.render.page import _charts, render_page
from reports.table import verdict_table

pytestmark = pytest.mark.K8

MUTATED = 150  # `make fuzz` has more of them, for the commands
HOSTILE = [
    "</script><script>hacked()</script><img src=x onerror=hacked()>",
    "\"><img src=x onerror='hacked()'>",
    "' onmouseover='hacked()",
    "]]></svg><svg onload=hacked()><!--",
    "javascript:hacked()",
    'https://x.org/"onclick=hacked()',
    "{{ 7 * 7 }}{% raw %}",
    "$& \\u003cimg onerror=hacked()\\u003e",
    "datum['x'] + hacked()",
    "constructor",
    "\x1b[2J\x00\u202e",
    "a\nb",
    "",
    "\ud800",
    "txt.\u202eexe\u2066",
    "W" * 3000,
    "9" * 30_000,
]
HUGE = [1e308, -1e308, 1e299, 5e-324, 10**400, -(10**25), 2**63, 0, -1, 0.5]
WRONG = [None, True, False, [], {}, [[]], {"a": {"b": [1]}}, [1, 2], ["x"] * 3, [2, 1], [0, 0]]
GENTLE = ("text", "number", "label")  # the result may well be valid
ROUGH = ("wrong", "delete", "deep", "repeat", "constant", "cut", "byte")
CHECKED = ("id", "claim", "measurements", "verdict", "lesson", "direction", "profile", "device")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        if isinstance(inner, dict | list):
            yield from places(inner)
        yield value, key


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_free_text(container: Any, key: Any) -> bool:
    return isinstance(container, dict) and key not in CHECKED and isinstance(container[key], str)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[dict[str, Any]]) -> bytes:
    """The bytes of a results file in which one to three things are not as they were."""

    def one_of(items: Sequence[Any]) -> Any:
        return items[draw(st.integers(0, len(items) - 1))]

    document = copy.deepcopy(one_of(seeds))
    possible = one_of([GENTLE, GENTLE, ROUGH])
    kinds = [one_of(possible) for _ in range(draw(st.integers(1, 3)))]
    for kind in kinds:
        found = list(places(document))
        if kind == "text":
            found = [(c, k) for c, k in found if is_free_text(c, k)] or found
        elif kind == "number":
            found = [(c, k) for c, k in found if is_number(c[k]) and k != "schema"] or found
        container, key = one_of(found)
        if kind == "text":
            container[key] = one_of(HOSTILE)
        elif kind == "number":
            container[key] = one_of([*HUGE, draw(st.floats(-1e6, 1e6))])
        elif kind == "label":
            labels = one_of(document["measurements"])["parameters"]
            labels.pop(one_of([*labels, None]), None)
            if draw(st.booleans()):
                label = one_of([*HOSTILE[:9], *HUGE[:4], True])
                labels[one_of([*labels, *HOSTILE[:9]])] = label
        elif kind == "wrong":
            container[key] = one_of([*WRONG, *HOSTILE, *HUGE])
        elif kind == "delete":
            del container[key]
        elif isinstance(container, dict) and kind == "deep":
            container[one_of([key, HOSTILE[0], "__proto__"])] = {"a": [{"b": [1]}]}
    text = json.dumps(document)
    if "repeat" in kinds:
        at = text.index("{", draw(st.integers(0, len(text) // 2)))
        text = f'{text[:at]}{{"a": 1, "a": 2, {text[at + 1 :]}'
    if "constant" in kinds:
        constant = one_of(["NaN", "-Infinity", "1e999", "-1e999", "[" * 5000])
        text = text.replace('"value": ', f'"value": {constant}, "was": ', 1)
    content = text.encode("utf-8", "surrogatepass")
    if "cut" in kinds:
        content = content[: draw(st.integers(0, len(content) - 1))]
    if "byte" in kinds and content:
        at = draw(st.integers(0, len(content) - 1))
        content = content[:at] + draw(st.binary(min_size=1, max_size=2)) + content[at + 1 :]
    return content


class Elements(HTMLParser):
    """What kinds of elements and attributes a page is made of, and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.kinds: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in [("", ""), *attributes]:
            scheme = str(value).partition(":")[0] if name in ("href", "src") else ""
            self.kinds.add(f"{tag} {name} {scheme if scheme in ('https', 'javascript') else ''}")


@pytest.fixture(scope="module")
def each_claim(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of each measured claim alone, the measurements few."""
    alone = []
    for claim in results["claims"]:
        own = [m for m in results["measurements"] if m["claim"] == claim["id"]][:8]
        names = {m["id"] for m in own}
        few = copy.deepcopy(claim)
        for part in (few, *few["requirements"]):
            part["measurements"] = [name for name in part["measurements"] if name in names]
        if own:
            alone.append({**results, "claims": [few], "measurements": own})
    return alone


def test_each_of_many_mutated_results_is_read_or_refused_in_one_line_and_stays_text(
    each_claim: list[dict[str, Any]],
    page: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Elements(page.replace(script_bundle(), "")).kinds
    # The library is on every page, the same each time, and takes a parser a while.
    monkeypatch.setattr("reports.render.page.script_bundle", lambda: "")
    # Charts of the same measurements are drawn once: most mutations leave them as they were.
    drawn: dict[str, Any] = {}

    def charts(claim: Any, own: Any, anchor: str) -> Any:
        key = json.dumps([claim["id"], claim["requirements"], own, anchor])
        if key not in drawn:
            drawn[key] = _charts(claim, own, anchor)
        return drawn[key]

    monkeypatch.setattr("reports.render.page._charts", charts)
    path = tmp_path_factory.mktemp("mutated") / "results.json"
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=MUTATED, suppress_health_check=list(HealthCheck))
    @given(content=mutated(each_claim))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        found, refusal = None, ""
        try:
            found = read(path)
        except UserError as error:
            refusal = str(error)
        if found is None:
            outcomes["refused"] += 1
            assert str(path) in refusal
            assert len(refusal.splitlines()) == 1
            assert len(refusal) < 1000
            return
        outcomes["read"] += 1
        built = render_page(found)
        built.encode()
        assert Elements(built).kinds - known <= {"a href https"}
        assert len(verdict_table(found).splitlines()) <= 3
        assert "\u202e" not in built + verdict_table(found) + as_csv(found)

    check()
    assert min(outcomes.values()) > MUTATED / 5, outcomes


def test_a_page_that_did_become_markup_would_be_noticed(page: str) -> None:
    assert Elements(HOSTILE[0]).kinds - Elements(page.replace(script_bundle(), "")).kinds == {
        "img  ",
        "img src ",
        "img onerror ",
    }


def test_a_claim_whose_charts_cannot_be_drawn_keeps_its_table_and_says_so(
    each_claim: list[dict[str, Any]], page: str
) -> None:
    told = "No chart: this version cannot draw these measurements"
    assert told not in page
    (speed,) = [r for r in each_claim if r["claims"][0]["id"] == "cache.fifteen-tokens"]
    speed = copy.deepcopy(speed)
    for measurement in speed["measurements"]:
        del measurement["parameters"]["new_tokens"]
    built = render_page(speed)
    assert told in built
    assert "<figure" not in built
    assert built.count('<tr><th scope="row">') == len(speed["measurements"])


def test_more_measurements_than_a_chart_shows_stand_in_the_table_alone(
    each_claim: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.render.charts.MOST_DRAWN", 7)
    (speed,) = [r for r in each_claim if r["claims"][0]["id"] == "cache.fifteen-tokens"]
    built = render_page(speed)
    assert "No chart: 8 measurements, a chart shows 7 at most." in built
    assert "<figure" not in built
    assert built.count('<tr><th scope="row">') == len(speed["measurements"]) == 8

"""Reads a report as a browser would: balanced tags, identifiers, text."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
FORBIDDEN = {"script", "iframe", "object", "embed", "img"}


class Page(HTMLParser):
    """Collects what a test asks about, and refuses what a report must not hold."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.sections: dict[str, str] = {}
        self.labels: list[str] = []
        self.captions = self.figures = self.tables = 0
        self.tags: set[str] = set()
        self._in: str | None = None
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in FORBIDDEN, tag
        given = dict(attributes)
        self.tags.add(tag)
        assert not any(name.startswith("on") for name in given), given
        if given.get("id"):
            self.ids.append(str(given["id"]))
        for name in ("href", "src", "xlink:href"):
            target = given.get(name)
            assert target is None or target.startswith(("#", "data:")), target
            if target and target.startswith("#"):
                self.references.append(target[1:])
        if given.get("aria-labelledby"):
            self.references.append(str(given["aria-labelledby"]))
        if given.get("role") == "img":
            self.labels.append(str(given["aria-label"]))
        if tag == "section":
            self._in = str(given["id"])
            self.sections[self._in] = ""
        self.figures += tag == "figure"
        self.tables += tag == "table"
        self.captions += tag in ("figcaption", "caption")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._in = None

    def handle_data(self, data: str) -> None:
        if self._in:
            self.sections[self._in] += data

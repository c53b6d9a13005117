"""Boxes in text: the last complete one, whatever braces it holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outthink.answers.reading import last_boxed

letters = st.text("abc $=\n", max_size=5)
balanced = st.recursive(
    letters | st.sampled_from([r"\{", r"\}", r"\\", r"\frac"]),
    lambda inner: st.lists(inner | inner.map(lambda part: "{" + part + "}"), max_size=4).map("".join),
    max_leaves=12,
).map(lambda content: content.replace("\\}", "\\} ").strip())


@given(letters, balanced, letters)
def test_nested_braces(before: str, content: str, after: str) -> None:
    text = before + r"\boxed{" + content + "}" + after
    assert last_boxed(text) == content
    assert last_boxed(r"\boxed{0} " + text) == content
    assert last_boxed(text + r" \boxed{cut " + "{") == content


def test_which_box() -> None:
    assert last_boxed(r"\boxed{1} \boxed {2} \fbox{3}") == "3"
    assert last_boxed(r"\boxed{\boxed{4}}") == "4"
    assert last_boxed(r"\boxed{\left\{ x \right\}}") == r"\left\{ x \right\}"
    assert last_boxed("boxed{1}") is None
    assert last_boxed(r"\boxed{1") is None

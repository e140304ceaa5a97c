"""Pages of a long list, by the number in the address."""

import pytest
from starlette.requests import Request

from gemma4vec.ui.content.paging import Paging


def request(query: str) -> Request:
    headers = [(b"host", b"127.0.0.1")]
    return Request(
        {"type": "http", "method": "GET", "path": "/runs", "query_string": query.encode(), "headers": headers}
    )


def test_the_last_page_is_short_and_has_no_next_one() -> None:
    found = Paging.of(request("page=3&sort=loss"), total=41, size=20)
    assert (found.page, found.pages, found.first, found.last, found.total) == (3, 3, 40, 41, 41)
    assert found.before == "/runs?sort=loss&page=2" and found.after == ""


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", 1),
        ("page=2", 2),
        ("page=0", 1),
        ("page=99", 3),
        ("page=-1", 1),
        ("page=x", 1),
        ("page=%C2%B2", 1),
        ("page=" + "9" * 10, 1),
    ],
)
def test_the_nearest_page_is_shown_where_there_is_no_such_page(query: str, page: int) -> None:
    assert Paging.of(request(query), total=41, size=20).page == page


def test_an_empty_list_has_one_page() -> None:
    found = Paging.of(request("page=2"), total=0, size=20)
    assert (found.page, found.pages, found.first, found.last, found.before, found.after) == (1, 1, 0, 0, "", "")

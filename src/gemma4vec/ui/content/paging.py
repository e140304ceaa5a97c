"""Long lists in pages, whose number stands in the address."""

from dataclasses import dataclass

from starlette.requests import Request


@dataclass(frozen=True)
class Paging:
    """One page of a list.

    Attributes:
        page, pages: from 1.
        first, last: of the list, as of a slice.
        before, after: addresses of the neighbors; empty where there is none.
    """

    page: int
    pages: int
    first: int
    last: int
    total: int
    before: str
    after: str

    @staticmethod
    def of(request: Request, total: int, size: int) -> "Paging":
        """The page that `?page=` names; the nearest one where there is no such page."""
        given = request.query_params.get("page", "1")
        pages = max(1, -(-total // size))
        page = min(max(int(given), 1), pages) if given.isascii() and given.isdigit() and len(given) < 10 else 1

        def address(number: int) -> str:
            if not 1 <= number <= pages:
                return ""
            return f"{request.url.path}?{request.url.include_query_params(page=number).query}"

        first = (page - 1) * size
        return Paging(page, pages, first, min(first + size, total), total, address(page - 1), address(page + 1))

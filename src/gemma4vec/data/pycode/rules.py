"""The rules of pycode in words, for its manifest. When they change, so does FORMAT: folders are then built anew."""

FORMAT = 2

RULES = {
    "functions": (
        "functions and methods of modules and classes, not of functions; no dunder methods, no tests; at least 3 lines "
        "of body that are neither blank nor comment; at most 20,000 characters"
    ),
    "document": "the source from the first decorator, dedented, docstring removed, comments kept",
    "query": "the docstring's first sentence without markup: at least 3 words, at most 300 characters, 90% ASCII",
    "duplicates": (
        "functions whose sets of identifiers, numbers and words have Jaccard >= 0.8, and queries whose sets of stems "
        "have, are kept once, test first"
    ),
    "answers": "test functions whose sentence is word for word the same are all right answers",
    "environment split": (
        "held-out packages are the test; copies of them in other packages are left out; packages drawn by hash are the "
        "dev part until it holds 5% of the other pairs"
    ),
    "folder split": (
        "packages (top-level folders) drawn by hash until they hold 20% of the pairs are the test; files are drawn "
        "where there are fewer than 5 packages or one has more than half of the pairs; dev as above"
    ),
    "negatives": "drawn from the 30 training functions that BM25 ranks first for the query",
}

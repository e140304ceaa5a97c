"""The rules of pycode in words, for its manifest. A change of the rules needs a new FORMAT, which rebuilds the data."""

FORMAT = 2

RULES = {
    "functions": (
        "functions and methods of modules and classes, not of functions; no dunder methods, no tests; at least 3 lines "
        "of body that are neither blank nor comment; at most 20,000 characters"
    ),
    "document": "the source from the first decorator, dedented, docstring removed, comments kept",
    "query": "the docstring's first sentence without markup: at least 3 words, at most 300 characters, 90% ASCII",
    "duplicates": (
        "of functions whose sets of identifiers, numbers and words have Jaccard similarity >= 0.8, the first is kept, "
        "test before training; likewise of queries, by their sets of stems"
    ),
    "answers": "test functions with the same words in their sentences are all relevant",
    "environment split": (
        "held-out packages are the test part; copies of them in other packages are left out; packages drawn by hash "
        "are the dev part until it has 5% of the other pairs"
    ),
    "folder split": (
        "packages (top-level folders) drawn by hash until they have 20% of the pairs are the test part; files are "
        "drawn instead if there are fewer than 5 packages or one has more than half of the pairs; dev as above"
    ),
    "negatives": "drawn from the 30 training functions that BM25 ranks highest for the query",
}

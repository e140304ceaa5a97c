"""A run folder as training and evaluation leave it, made up from a seed."""

import json
import math
from pathlib import Path

import numpy as np

from gemma4vec.data.suites.retrieval import RetrievalSuite, write_suite
from gemma4vec.evaluation.results.result import Result, save_result
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.text.prompts import Document

SOURCE = """def shortest_path(graph, source, target=None, weight="weight"):
    if target is None:
        return {node: path for node, path in _all_paths(graph, source, weight)}
    frontier = [(0, source)]
    while frontier:
        distance, node = heappop(frontier)
        if node == target:
            return distance
    raise NoPath(f"{target} cannot be reached from {source} along {weight}")
"""


def make_suite(folder: Path, queries: int = 120, hostile: str = "") -> RetrievalSuite:
    """One right document per query; some documents are long, one query and document carry `hostile`."""
    corpus = [
        Document(SOURCE.replace("shortest_path", f"function_{i}") * (1 + 20 * (i % 9 == 0)) + hostile)
        for i in range(2 * queries)
    ]
    suite = RetrievalSuite(
        name="test",
        corpus_ids=[f"networkx/algorithms/paths.py:function_{i}{hostile}" for i in range(2 * queries)],
        corpus=corpus,
        query_ids=[f"q{i}{hostile}" for i in range(queries)],
        queries=[
            f"Return the shortest path number {i} between two nodes of a weighted graph.{hostile}"
            for i in range(queries)
        ],
        qrels={f"q{i}{hostile}": {f"networkx/algorithms/paths.py:function_{i}{hostile}": 1} for i in range(queries)},
        role="dev",
        code=True,
    )
    write_suite(folder, suite)
    return suite


def add_result(run: RunFolder, suite: RetrievalSuite, model: str, skill: float, seed: int) -> None:
    """A result whose queries find their document at a random rank, better with more `skill`."""
    random = np.random.default_rng(seed)
    per_query, top = {}, []
    for row, query_id in enumerate(suite.query_ids):
        rank = int(random.geometric(min(max(skill, 1e-4), 1.0)))
        found = rank <= 10
        per_query[query_id] = {
            "ndcg@10": 1 / math.log2(rank + 1) if found else 0.0,
            "recall@100": float(rank <= 100),
            "mrr@10": 1 / rank if found else 0.0,
            "map": 1 / rank,
        }
        wrong = [suite.corpus_ids[(row + 7 * place + 1) % len(suite.corpus_ids)] for place in range(10)]
        order = [*wrong[: rank - 1], suite.corpus_ids[row], *wrong[rank - 1 :]][:10]
        top += [
            {"query_id": query_id, "rank": place + 1, "doc_id": key, "score": 1.0 - place / 20}
            for place, key in enumerate(order)
        ]
    settings = {
        "model": {"max_tokens": 256} if model != "bm25" else {"k1": 0.9, "b": 0.4},
        "suite": {"fingerprint": suite.fingerprint, "documents": len(suite.corpus), "queries": len(suite.queries)},
        "ranking": {"depth": 1000, "tie_rate@10": 0.02, "degenerate": False},
    }
    save_result(Result(model, suite.name, {suite.name: per_query}, settings), run.evaluation(model, suite.name), top)


def add_training(run: RunFolder, steps: int = 300, finished: bool = True) -> None:
    """Events of a training of `steps` steps of 1,500 tokens at about 1,500 tokens a second."""
    random = np.random.default_rng(0)
    seconds = 0.0
    for step in range(1, steps + 1):
        rate = 1500 * (1 + 0.1 * random.standard_normal())
        seconds += 1500 / rate
        loss = 0.4 + 2.6 * math.exp(-step / 60) + 0.15 * random.standard_normal()
        run.event("step", step=step, loss=loss, tokens=1500 * step, seconds=seconds, tokens_per_second=rate,
                  learning_rate=1e-4, padding_share=0.021)  # fmt: skip
        if step == 1 or step % max(steps // 4, 1) == 0:
            value = 0.6 * (1 - math.exp(-step / 80))
            run.event("evaluation", step=step, suite="dev",
                      **{"ndcg@10": value, "low": value - 0.05, "high": value + 0.05})  # fmt: skip
    if finished:
        run.event("finished", seconds=seconds, tokens=1500 * steps, peak_memory_bytes=5_300_000_000)


def make_run(home: Path, *, queries: int = 120, hostile: str = "", steps: int = 300, finished: bool = True) -> Path:
    """A whole run: training, three models on one suite, texts, manifest."""
    suite = make_suite(home / "data" / "pycode" / "test", queries, hostile)
    recipe = f"name: quickstart{hostile if hostile.isprintable() else ''}\nbase: bundled:gemma-3-270m\nseed: 0\n"
    run = RunFolder.create(
        home,
        "quickstart",
        recipe,
        suites={"test": {"path": str((home / "data" / "pycode" / "test").resolve()), "fingerprint": suite.fingerprint}},
        base={
            "name": "bundled:gemma-3-270m",
            "revision": "3f2a9c",
            "licence": "gemma",
            "terms": f"Gemma terms of use{hostile}",
        },
        data={"pairs": 35_120, "held_out": ["networkx", "rich", "jinja2"], "content_hash": "9f" * 32},
        environment={"versions": {"torch": "2.13.0", "python": "3.11.7"}, "machine": {"cores": 2, "cpu": "Some CPU"}},
    )
    add_training(run, steps, finished)
    for seed, (model, skill) in enumerate({"bm25": 0.35, "untrained": 0.002, "trained": 0.5}.items()):
        add_result(run, suite, model, skill, seed)
    return run.path


if __name__ == "__main__":
    import sys

    from gemma4vec.report.run_page import write_report

    print(json.dumps(str(write_report(make_run(Path(sys.argv[1]))))))

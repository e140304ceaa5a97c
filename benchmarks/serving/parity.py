"""Do gemma4vec and plain sentence-transformers get the same vectors and scores out of one merged folder?

    python -m benchmarks.serving.parity RUN SUITE

Fails (exit code 1) where they do not: in fp32 every cosine must be at least .99999, in bf16 their mean at least .999
(there a vector depends on what else is in the batch, whoever computes it), and nDCG@10 must agree within .002 in both.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from benchmarks.shared.plain_model import Vectors
    from gemma4vec.text.text_embedder import TextEmbedder

FP32_MINIMUM = 0.99999
BF16_MEAN = 0.999
NDCG_DIFFERENCE = 0.002


def main() -> int:
    arguments = parse_arguments()
    from benchmarks.shared.plain_model import model_folder

    folder = model_folder(arguments.model)
    suite = sample_suite(load_suite(arguments.suite), arguments.queries, arguments.documents)
    say(f"{suite.name}: {len(suite.queries)} queries, {len(suite.corpus)} documents")
    by_dtype = {dtype: compare(folder, suite, dtype, arguments.device) for dtype in arguments.dtype}
    failures = [f"{dtype}: {failure}" for dtype, found in by_dtype.items() for failure in violated(dtype, found)]
    for dtype, found in by_dtype.items():
        report(dtype, found)
    measured = {
        "suite": suite.name,
        "queries": len(suite.queries),
        "documents": len(suite.corpus),
        "limits": {"fp32 cosine": FP32_MINIMUM, "bf16 mean cosine": BF16_MEAN, "ndcg@10": NDCG_DIFFERENCE},
        "by_dtype": by_dtype,
        "failures": failures,
    }
    write_result(f"parity-{suite.name}", measured, arguments.results)
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run folder or merged model folder")
    parser.add_argument("suite", type=Path, help="folder in BEIR layout")
    parser.add_argument("--queries", type=int, help="sample so many queries (default: all)")
    parser.add_argument("--documents", type=int, help="and so many documents, the judged ones first (default: all)")
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def compare(folder: Path, suite: RetrievalSuite, dtype: str, device: str | None) -> dict[str, Any]:
    """Cosines and scores of both in one dtype."""
    from benchmarks.shared.plain_model import PlainModel, cosines
    from gemma4vec.model.inference.embedder import Embedder

    ours = Embedder.load(folder, device=device, dtype=dtype)
    if not isinstance(ours, Embedder):
        raise InputError(f"{folder} is not a model folder of gemma4vec; there is nothing to compare")
    our_queries, our_documents, our_score = vectors_and_score(ours, suite, f"ours in {dtype}")
    plain = PlainModel(folder, ours.prompts, dtype=dtype, device=device)
    queries, documents, score = vectors_and_score(plain, suite, f"sentence-transformers in {dtype}")
    found: dict[str, Any] = {
        kind: {"minimum": float(values.min()), "mean": float(values.mean()), "n": len(values)}
        for kind, values in (
            ("queries", cosines(our_queries, queries)),
            ("documents", cosines(our_documents, documents)),
        )
    }
    return found | {"ndcg@10": {"ours": our_score, "sentence_transformers": score, "difference": our_score - score}}


def vectors_and_score(model: "TextEmbedder", suite: RetrievalSuite, what: str) -> "tuple[Vectors, Vectors, float]":
    """Query vectors, document vectors and nDCG@10 by gemma4vec's evaluation: only the encoder differs."""
    from gemma4vec.evaluation.scoring.evaluate import evaluate

    say(f"{what}: encoding")
    queries_ND, documents_MD = model.encode_query(suite.queries), model.encode_document(suite.corpus)
    result = evaluate(model, suite, documents_MD=documents_MD)
    return queries_ND, documents_MD, result.mean["ndcg@10"]


def violated(dtype: str, found: dict[str, Any]) -> list[str]:
    """What is outside of the limits."""
    failures = []
    for kind in ("queries", "documents"):
        if dtype == "fp32" and not found[kind]["minimum"] >= FP32_MINIMUM:
            failures.append(f"the least cosine of {kind} is {found[kind]['minimum']:.7f}, below {FP32_MINIMUM}")
        if dtype == "bf16" and not found[kind]["mean"] >= BF16_MEAN:
            failures.append(f"the mean cosine of {kind} is {found[kind]['mean']:.6f}, below {BF16_MEAN}")
    if not abs(found["ndcg@10"]["difference"]) <= NDCG_DIFFERENCE:
        failures.append(f"nDCG@10 differs by {found['ndcg@10']['difference']:+.4f}, more than {NDCG_DIFFERENCE}")
    return failures


def report(dtype: str, found: dict[str, Any]) -> None:
    """The outcome on stdout."""
    for kind in ("queries", "documents"):
        values = found[kind]
        print(f"{dtype}  cosine of {kind}: minimum {values['minimum']:.7f}, mean {values['mean']:.7f}, n={values['n']}")
    scores = found["ndcg@10"]
    print(
        f"{dtype}  nDCG@10: ours {scores['ours']:.4f}, sentence-transformers {scores['sentence_transformers']:.4f}, "
        f"difference {scores['difference']:+.4f}"
    )


if __name__ == "__main__":
    as_program(main)

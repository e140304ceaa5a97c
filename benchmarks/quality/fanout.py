"""What other queries for a query are worth, beside noise at the same angles.

    python -m benchmarks.quality.fanout DATA [--model NAME] [--decoder DIR] [--suggester DIR] [--suites NAME ...]
                                             [--log-queries N] [--queries N] [--documents N]

DATA holds `retrieval/NAME` (suites in BEIR's layout) and `train/NAME.jsonl.gz` (rows, whose queries are the log).
For each suite the table of `gemma4vec fanout`: each method with 8 suggestions a query, the gain of the fused ranking
without labels, and the best of n over noise's best of n. Without a decoder the nearest query of the log is the text
of a point: what a decoder has to beat.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.api.scoring import open_scorer
from gemma4vec.data.loading.open_suite import open_suite
from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.fanout.fit_gate import with_gate
from gemma4vec.fanout.measure import measure_fanout
from gemma4vec.fanout.never_walked import drop_walked
from gemma4vec.fanout.setting import Choices, Setting
from gemma4vec.fanout.suggester import Suggester
from gemma4vec.fanout.writers import DecoderWriter, LogWriter
from gemma4vec.inversion.decoder import VectorDecoder
from gemma4vec.inversion.held_out import normalized
from gemma4vec.inversion.read_texts import read_texts

SUITES = ("medquad_liveqa", "cosqa", "scifact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--model", default="bundled:all-minilm-l6-v2")
    parser.add_argument("--decoder", type=Path, help="decoder of the model's query vectors")
    parser.add_argument("--suggester", type=Path, help="trained suggester, judged on queries that it never saw")
    parser.add_argument("--suites", nargs="+", default=list(SUITES))
    parser.add_argument("--queries", type=int, help="sample of each suite's queries; default: all")
    parser.add_argument("--documents", type=int, help="sample of each suite's documents; default: all")
    parser.add_argument("--log-queries", type=int, default=25_000, help="sample of the training rows' queries")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    embedder: Any = open_scorer(arguments.model, None, None, cached=True)
    found, _ = read_texts(sorted((arguments.data / "train").glob("*.jsonl.gz")), arguments.log_queries)
    texts = list({normalized(text): text for text in found}.values())
    say(f"log: {len(texts):,} queries")
    log = LogWriter(texts, embedder.encode_query(texts))
    writer: Any = log
    if arguments.decoder is not None:
        inner = getattr(embedder, "embedder", embedder)
        writer = DecoderWriter(VectorDecoder.load(arguments.decoder, inner, role="query"), texts)
    suggester = None if arguments.suggester is None else Suggester.load(arguments.suggester)
    measured: dict[str, Any] = {"model": embedder.name, "writer": writer.name, "log": len(texts), "suites": {}}
    for name in arguments.suites:
        suite = open_suite(str(arguments.data / "retrieval" / name))
        if not isinstance(suite, RetrievalSuite):
            raise InputError(f"{name} is no retrieval suite")
        suite = sample_suite(suite, arguments.queries, arguments.documents)
        if suggester is not None:
            suite, walked = drop_walked(suite, suggester.facts)
            say(f"{name}: {walked} queries were walked for the suggester and are left out")
        queries, documents = embedder.encode_query(suite.queries), embedder.encode_document(suite.corpus)
        setting = Setting(suite, embedder, queries, documents, writer, log, Choices(), suggester=suggester)
        setting, gate = with_gate(setting, None)
        sizes = {"suite": suite.name, "documents": len(suite.corpus)}
        table = {**sizes, **measure_fanout(setting), "gate": gate.as_json()}
        measured["suites"][name] = table
        alone = table["ndcg@10"]["mean"]
        say(f"{name}: {table['queries']} queries, {len(suite.corpus)} documents; alone {alone:.3f}. {gate.sentence()}")
        for row in table["rows"]:
            over = row["best_minus_noise"] or row["best"]
            say(
                f"  {row['method']:28} kept {row['kept']:.1f}  fused {row['gain']['mean']:+.3f} "
                f"[{row['gain']['low']:+.3f}, {row['gain']['high']:+.3f}]  best {row['best']['mean']:+.3f}, "
                f"over noise {over['mean']:+.3f} [{over['low']:+.3f}, {over['high']:+.3f}]"
            )
        say(f"  {table['sentence']}")
        write_result("fanout", measured, arguments.results, quiet=True)  # after each suite: they take minutes


if __name__ == "__main__":
    as_program(main)

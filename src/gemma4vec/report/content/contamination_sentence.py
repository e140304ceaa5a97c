"""One sentence about a result's contamination: whether the training data overlaps with the suite."""

from gemma4vec.evaluation.results.result import Result
from gemma4vec.evaluation.scoring.contamination_mark import mark_sentence, touched_queries, unknown_sentence

BM25 = "bm25"  # its fingerprint


def contamination_sentence(result: Result) -> str:
    """Describe the overlap of training data and suite; empty for BM25, which is not trained.

    The source is `settings["contamination"]`, from `contamination_mark.find_mark`.
    """
    mark = result.settings.get("contamination")
    if not isinstance(mark, dict):
        if result.settings.get("model_fingerprint") == BM25:
            return ""
        trained = (result.settings.get("run") or {}).get("recipe_id")
        return (
            "not checked: whether its training data overlaps with this suite is unknown"
            if trained
            else unknown_sentence([result.model])
        )
    unchecked = [str(name) for name in mark.get("unchecked") or []]
    parts = []
    if mark.get("sources"):
        documents = sum(int(source.get("found_documents") or 0) for source in mark["sources"])
        if touched_queries(result):
            parts.append(mark_sentence(result, unchecked=False) or "")
        else:
            inside = (
                f"; it contains {documents:,} of the suite's documents, none relevant to a query" if documents else ""
            )
            parts.append(f"checked: training data touches no query{inside}")
    if unchecked:
        parts.append(
            f"not checked against this suite: {', '.join(unchecked[:3])}{' ...' if len(unchecked) > 3 else ''}"
        )
    if unknown := [*(mark.get("unknown") or []), *(mark.get("pretrained") or [])]:
        parts.append(unknown_sentence(unknown))
    return "; ".join(parts)

"""The fitted gate: its quantile by hand, another model's cosines, no judgment, and what has nothing to fit to."""

from dataclasses import replace

import numpy as np
import pytest
from fanout_setting import VARIED, WORDS, make

from gemma4vec.fanout.fit_gate import chance_cosine, fit_gate, near_cosines, with_gate
from gemma4vec.fanout.keep import same_words
from gemma4vec.fanout.setting import Setting
from gemma4vec.fanout.writers import LogWriter


def by_hand(setting: Setting, texts: list[str], n: int) -> list[float]:
    """The cosines of each query and its nearest texts with other words, by sorting all of them."""
    vectors, found = setting.embedder.encode_query(texts), []
    for query, query_d in zip(setting.suite.queries, setting.queries_Qd, strict=True):
        best: dict[tuple[str, ...], float] = {}
        for text, vector_d in zip(texts, vectors, strict=True):
            if same_words(text) != same_words(query):
                best[same_words(text)] = max(best.get(same_words(text), -1.0), float(vector_d @ query_d))
        found += sorted(best.values(), reverse=True)[:n]
    return found


def test_the_gate_is_the_quantile_of_the_nearest_queries_of_the_log() -> None:
    texts = [f"{one} {other}" for one in WORDS for other in WORDS[::5]]
    setting = make(log=[*texts, *make().suite.queries])  # the log also holds the dev queries themselves
    expected = by_hand(setting, [*texts, *setting.suite.queries], 4)
    assert setting.log is not None
    found = near_cosines(setting, setting.log)
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-6)
    gate = fit_gate(setting)
    assert gate.faithful == pytest.approx(np.quantile(expected, 0.25), abs=1e-6)
    assert np.mean(found >= gate.faithful) == pytest.approx(0.75, abs=0.05)
    assert "which 75% of the 4 nearest queries of the log reach (24 dev queries, no judgments" in gate.sentence()


def test_a_model_with_higher_cosines_has_a_higher_gate_and_lets_as_many_pass() -> None:
    """The same texts in a narrow cone: a fixed gate would let everything through."""
    plain = make(log=VARIED)
    assert isinstance(plain.log, LogWriter)

    def narrow(vectors: np.ndarray) -> np.ndarray:
        wide = np.concatenate([vectors, np.full((len(vectors), 1), 2.0, np.float32)], axis=1)
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float32)

    class Narrow(type(plain.embedder)):  # type: ignore[misc]
        def encode_query(self, texts, *, progress=None):  # type: ignore[no-untyped-def]
            return narrow(super().encode_query(texts))

    texts = [text for text, _ in plain.log.near(plain.queries_Qd[:1], 10_000)[0]]
    embedder = Narrow()
    log = LogWriter(texts, embedder.encode_query(texts))
    cone = replace(
        plain,
        embedder=embedder,
        queries_Qd=embedder.encode_query(plain.suite.queries),
        documents_Md=narrow(plain.documents_Md),
        writer=log,
        log=log,
    )
    gates = [fit_gate(setting) for setting in (plain, cone)]
    assert gates[1].faithful > gates[0].faithful + 0.2 and gates[1].chance > gates[0].chance + 0.2  # type: ignore[operator]

    def passing(setting: Setting, faithful: float | None) -> float:
        fitted, _ = with_gate(setting, faithful)
        assert fitted.log is not None
        return float(np.mean(near_cosines(fitted, fitted.log) >= fitted.choices.gates.faithful))

    assert passing(plain, None) == pytest.approx(0.75, abs=0.03) == passing(cone, None)
    assert passing(cone, gates[0].faithful) == 1 and passing(plain, gates[1].faithful) < 0.3


def test_no_judgment_and_no_seed_is_in_it() -> None:
    one, other = make(), make(seed=3)
    other.suite.qrels.clear()
    assert fit_gate(one) == fit_gate(other)


def test_without_a_log_other_queries_are_near_and_one_query_has_none() -> None:
    setting = make()
    writer = setting.writer

    class Silent(type(writer)):  # type: ignore[misc]
        def own_texts(self) -> None:
            return None

    silent = Silent(["a b"], setting.embedder.encode_query(["a b"]))
    alone = replace(setting, log=None, writer=silent)
    gate = fit_gate(alone)
    assert gate.source == "other dev queries"
    assert gate.faithful == pytest.approx(np.quantile(by_hand(setting, setting.suite.queries, 4), 0.25), abs=1e-6)
    single = replace(
        alone, suite=replace(setting.suite, queries=setting.suite.queries[:1]), queries_Qd=setting.queries_Qd[:1]
    )
    assert chance_cosine(single) is None
    given = fit_gate(single)
    assert not given.fitted and given.faithful == setting.choices.gates.faithful


def test_a_given_gate_stays() -> None:
    setting, gate = with_gate(make(), -1.0)
    assert setting.choices.gates.faithful == -1.0 == gate.faithful
    assert gate.sentence() == "Gate: cosine -1.000 to the query, as given." and gate.as_json()["fitted"] is False

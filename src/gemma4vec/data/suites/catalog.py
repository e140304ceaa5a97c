"""Catalog of suites that can be opened by name: public data sets on the model hub, each pinned to one commit.

The commits are those that mteb 2.26 pins for the same tasks. Every score is stored with the commit that was requested,
the commit that the files are known to have (a mirror may not know it), and the fingerprint of the suite's contents.
"""

from dataclasses import dataclass
from typing import Literal

from gemma4vec.data.suites.kinds import Kind, Role


@dataclass(frozen=True)
class HubTask:
    """One task on the hub.

    Attributes:
        name: name of the task in results.
        repository, revision: data set and its commit.
        split: split of every table.
        layout: `retrieval` has the tables corpus, queries and qrels; `sts` has the columns sentence1, sentence2, score.
        language: prefix of the tables' names in a multilingual data set; empty in a monolingual one.
        queries, documents: size of a fixed sample, which includes all judged documents; None takes all.
    """

    name: str
    repository: str
    revision: str
    split: str
    layout: Literal["retrieval", "sts"] = "retrieval"
    language: str = ""
    queries: int | None = None
    documents: int | None = None


@dataclass(frozen=True)
class CatalogSuite:
    """Tasks under one name; `description` is for people."""

    name: str
    kind: Kind
    role: Role
    description: str
    tasks: tuple[HubTask, ...]


NANO = {
    "NanoArguAna": "63ac9f026e8f6b85dc0622f3d630ed7a1758e9ec",
    "NanoClimateFever": "ccb5552bc17e87afe0f9479fb4346898213a71db",
    "NanoDBPedia": "2d088f80d7a640eac0be5c66408d68c3f782baa1",
    "NanoFEVER": "a6490dfeed0f13c2a052e39c6ddaeb6086afd4a8",
    "NanoFiQA2018": "ede84da4793cd2d4e61bba0dd08fc58de90f3681",
    "NanoHotpotQA": "a38a2615f29adba8b47a42905031aa9c137d8fae",
    "NanoMSMARCO": "5a5aa0c3df65d6883d85c8f5cdc88e679633595e",
    "NanoNFCorpus": "2eec9d63140fb9af7c75ad0fdbf6350aaf20e94e",
    "NanoNQ": "e3973b405feb9e94d07fd971d690d24d7f45264a",
    "NanoQuora": "3ee153e5710da83a7f35df0cb1db4a0ad036072a",
    "NanoSCIDOCS": "cf39b8741a6f2e984d0b8f4796b2dd5bb65390f9",
    "NanoSciFact": "8c5f7bbe90bb865f46c67710221afa7d9096251b",
    "NanoTouche2020": "ff81c0caff8b6febe1495eae9f2ca3eddad074b8",
}
# The same thirteen tasks, machine-translated.
NANO_TRANSLATED = {
    "NanoArguAna": "c0b2a891577e87141baf768b28e7acb997ac5680",
    "NanoClimateFever": "2fe8eb61630d248dc0bd1a13e4b7f6406b4a3e2a",
    "NanoDBPedia": "d190b64f4888205f70b5bfdd4fdf806100139dd0",
    "NanoFEVER": "58c0c39b5718de4c64ba115e30ae830f25fc6c62",
    "NanoFiQA2018": "6af7d1d165dab5c41840440ee33373d3a459483a",
    "NanoHotpotQA": "d226781cb805c360229d14c2efa8672d11226075",
    "NanoMSMARCO": "f579311c703483afcec3062f58fe69e9f0813843",
    "NanoNFCorpus": "4484b487f178125827f7dda052f1b2f5673548d6",
    "NanoNQ": "4104e3376fe243f0bd4845e204b01c0fc3f7d1d7",
    "NanoQuora": "eb9418faade7449e869be388846f287aa3535b64",
    "NanoSCIDOCS": "06cff48c8ebea5f46e3effa29573fc22a5b9d8fc",
    "NanoSciFact": "3e75543b8006c013ec14d36a17dd3010eb139f72",
    "NanoTouche2020": "cc244b553d65a88fb66d913907146fe4c33aef29",
}
LANGUAGES = ("ar", "de", "es", "fr", "it", "ja", "ko", "no", "pt", "sv")
# Small corpora on different subjects: claims, health, citations, debate, climate.
COMPACT = ("NanoArguAna", "NanoClimateFever", "NanoNFCorpus", "NanoSCIDOCS", "NanoSciFact")
COMPACT_DOCUMENTS = 1000


def _english_tasks(names: tuple[str, ...], documents: int | None = None) -> tuple[HubTask, ...]:
    return tuple(HubTask(name, f"mteb/{name}Retrieval", NANO[name], "train", documents=documents) for name in names)


def _translated_tasks(language: str) -> tuple[HubTask, ...]:
    return tuple(
        HubTask(f"{name}-{language}", f"mteb/Multilingual{name}Retrieval", commit, "test", language=language)
        for name, commit in NANO_TRANSLATED.items()
    )


def _german_sts_tasks(split: str) -> tuple[HubTask, ...]:
    commit = "75829b73cccb64bf86a9f098cbc780d37b786091"
    return (HubTask("GermanSTSBenchmark", "mteb/GermanSTSBenchmark", commit, split, "sts"),)


_GERMAN_DPR = HubTask("GermanDPR", "mteb/GermanDPR", "64a4860e55ba6d8fcb923d5306d08e08b1c72794", "test")
_REST = tuple(name for name in NANO if name not in COMPACT)

CATALOG: dict[str, CatalogSuite] = {
    suite.name: suite
    for suite in (
        CatalogSuite(
            "nanobeir", "retrieval", "final", "13 English tasks, 50 queries each", _english_tasks(tuple(NANO))
        ),
        CatalogSuite(
            "nanobeir-compact",
            "compact-retrieval",
            "dev",
            f"5 of these tasks, with {COMPACT_DOCUMENTS:,} documents each; takes minutes",
            _english_tasks(COMPACT, COMPACT_DOCUMENTS),
        ),
        CatalogSuite(
            "nanobeir-rest",
            "retrieval",
            "final",
            "the 8 tasks of nanobeir that are not in nanobeir-compact",
            _english_tasks(_REST),
        ),
        *(
            CatalogSuite(
                f"nanobeir-{one}", "retrieval", "final", "the 13 tasks, machine-translated", _translated_tasks(one)
            )
            for one in LANGUAGES
        ),
        CatalogSuite("germandpr", "retrieval", "dev", "German questions and Wikipedia passages", (_GERMAN_DPR,)),
        CatalogSuite("germansts", "sts", "final", "STS benchmark in German, test split", _german_sts_tasks("test")),
        CatalogSuite(
            "germansts-dev", "sts", "dev", "STS benchmark in German, validation split", _german_sts_tasks("validation")
        ),
    )
}

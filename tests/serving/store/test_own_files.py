"""Our own files: every kind of code reaches its recall, damage and half-done work are noticed."""

import json
import logging
import re
import sys

import numpy as np
import pyarrow as pa
import pytest
from small_rows import META, small_rows, vectors

from gemma4vec.errors import InputError, WorkError
from gemma4vec.retrieval.exact import search
from gemma4vec.serving.store.codes import COARSE_TIMES, COARSE_WORDS, KINDS, make_codes, open_codes, pack_signs
from gemma4vec.serving.store.open_store import verify_store
from gemma4vec.serving.store.own_files import OwnFiles
from gemma4vec.serving.store.recall_gate import build_and_check
from gemma4vec.serving.store.search_store import add_rows, search_store
from gemma4vec.serving.store.staged_rows import map_arrow, write_arrow
from gemma4vec.serving.store.vector_store import Candidates


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    store = OwnFiles.create(tmp_path_factory.mktemp("own") / "store", META)
    add_rows(store, small_rows(2000))
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_code_reaches_the_recall_that_it_says(stored, kind):
    gate = build_and_check(stored, kind, vectors(100, seed=3))
    assert gate is not None and gate.passed and gate.recall >= 0.98 and gate.parameters["oversample"] >= 1
    again = OwnFiles.open(stored.folder)
    assert again.meta.gate == gate and "recall@10" in gate.line()
    found = search_store(again, vectors(3, seed=4), 5)
    assert len(found) == 3 and found[0][0].score >= found[0][4].score
    again.close()


@pytest.mark.parametrize("dimension", [64, 100, 640])
def test_hamming_distances_are_counted_bits(dimension):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((50, dimension)).astype(np.float32)
    arrays = make_codes("binary", rows)
    query = -rows[0]
    codes = open_codes("binary", arrays, 50, dimension)
    centred = rows - rows.mean(axis=0)
    expected = ((centred > 0) != (query - rows.mean(axis=0) > 0)).sum(axis=1)
    np.testing.assert_array_equal(codes.distances(query), expected)
    best = set(codes.nearest(query, 5, None).tolist())
    assert set(np.flatnonzero(expected < np.sort(expected)[4]).tolist()) <= best and len(best) >= 5
    mask = np.zeros(50, bool)
    mask[[3, 9]] = True
    assert codes.nearest(query, 5, mask).tolist() == [3, 9]
    assert pack_signs(rows).shape == (50, -(-dimension // 64))


@pytest.mark.parametrize(("count", "size"), [(10, 3000), (20, 20_000)])
def test_a_few_bits_choose_many_rows_and_all_bits_choose_few_of_these(count, size):
    rows, query = vectors(size), vectors(1, seed=2)[0]
    arrays = make_codes("pca_binary", rows)
    axes, mean = arrays["axes"].astype(np.float64) @ arrays["mixing"], rows.mean(axis=0, dtype=np.float64)
    words = np.concatenate([arrays["coarse"].T, arrays["fine"]], axis=1)
    bits = np.unpackbits(words.view(np.uint8), axis=1).astype(bool)
    assert (bits == ((rows - mean) @ axes > 0)).mean() > 0.9999  # a number next to zero may round to either side
    differing = bits != ((query - mean) @ axes > 0)
    few, whole = differing[:, : 64 * COARSE_WORDS].sum(axis=1), differing.sum(axis=1)
    codes = open_codes("pca_binary", arrays, size, 64)
    found = codes.nearest(query, count, None)
    # At least COARSE_TIMES rows are chosen for each wanted one; a sample may choose a distance more.
    least = np.sort(few)[count * COARSE_TIMES - 1]
    expected = []
    for distance in range(least, least + 8):
        coarse = np.flatnonzero(few <= distance)
        expected.append(coarse[whole[coarse] <= np.sort(whole[coarse])[count - 1]].tolist())
    assert found.tolist() in (expected[:1] if size < 32 * count * COARSE_TIMES else expected)


def test_rows_of_mixed_signs_match_the_mask_and_may_be_all():
    rows, query = vectors(3000), vectors(1, seed=2)[0]
    codes = open_codes("pca_binary", make_codes("pca_binary", rows), 3000, 64)
    mask = np.zeros(3000, bool)
    mask[[3, 9, 2000]] = True
    assert codes.nearest(query, 10, mask).tolist() == [3, 9, 2000]
    assert codes.nearest(query, 5000, None).tolist() == list(range(3000))


def test_codes_rank_as_their_scores_say():
    rows, query = vectors(400), vectors(1, seed=2)[0]
    exact = set(search(query[None], rows, 5).indices[0].tolist())
    for kind in ("int8", "prefix", "pca"):
        codes = open_codes(kind, make_codes(kind, rows), 400, 64)
        assert exact <= set(codes.nearest(query, 20, None).tolist()), kind


def test_a_bad_index_fails_its_gate_and_says_so(tmp_path, caplog):
    class Forgetful(OwnFiles):
        """Loses every row whose id ends with 3, 5 or 7, also in exact mode."""

        def candidates(self, queries_ND, count, where, parameters):
            found = super().candidates(queries_ND, count, where, parameters)
            kept = [[i for i, one in enumerate(c.ids) if one[-1] not in "357"] for c in found]
            return [
                Candidates([c.ids[i] for i in rows], c.vectors_CD[rows], c.complete)
                for c, rows in zip(found, kept, strict=True)
            ]

    store = Forgetful.create(tmp_path / "store", META)
    add_rows(store, small_rows(600))
    with caplog.at_level(logging.WARNING, "gemma4vec"):
        gate = build_and_check(store, "binary", vectors(60, seed=3))
    assert gate is not None and not gate.passed and gate.recall < 0.9
    assert "BELOW 0.98" in caplog.text and OwnFiles.open(tmp_path / "store").meta.gate == gate
    assert gate.parameters == {"oversample": 128}  # the last one that was tried


def test_the_queries_that_judge_do_not_choose(tmp_path, monkeypatch):
    seen = []
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(400))
    original = OwnFiles.candidates

    def watch(self, queries_ND, count, where, parameters):
        seen.append((parameters, {query.tobytes() for query in queries_ND}))
        return original(self, queries_ND, count, where, parameters)

    monkeypatch.setattr(OwnFiles, "candidates", watch)
    build_and_check(store, "binary", vectors(60, seed=3))
    judging = seen[-1][1]
    assert len(judging) == 30 and all(not judging & queries for _, queries in seen[:-1]) and len(seen) >= 2


def test_auto_is_exact_for_few_rows_and_takes_another_code_where_one_fails(tmp_path, monkeypatch):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(300))
    build_and_check(store)
    assert store.meta.index == "exact"
    monkeypatch.setattr("gemma4vec.serving.store.own_files.EXACT_BELOW", 100)
    monkeypatch.setitem(sys.modules, "faiss", None)  # with it, "pq" comes first
    gate = build_and_check(store, queries_ND=vectors(60, seed=3))
    assert store.meta.index == "pca_binary" and gate is not None and gate.passed
    for kind in ("pca_binary", "binary"):
        monkeypatch.setitem(OwnFiles.ladder.__globals__["OVERSAMPLES"], kind, (1,))
    gate = build_and_check(store, queries_ND=vectors(60, seed=3))
    assert store.meta.index == "pca" and gate is not None and gate.passed


@pytest.mark.parametrize("name", ["words.npy", "offset.npy"])
def test_a_flipped_bit_in_the_codes_is_damage(tmp_path, name):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(100))
    build_and_check(store, "binary", held_out=5)
    store.close()
    path = tmp_path / "store" / "data-1" / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged \(its checksum differs\)"):
        OwnFiles.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "content"),
    [("store.json", b"{"), ("store.json", b"[]"), ("data-1/vectors.npy", b"x"), ("data-1/rows.arrow", b"ARROW1")],
)
def test_damaged_files_are_one_line(tmp_path, name, content):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(50))
    build_and_check(store, "int8", held_out=5)
    store.close()
    (tmp_path / "store" / name).write_bytes(content)
    with pytest.raises(InputError, match="damaged") as failure:
        OwnFiles.open(tmp_path / "store")
    assert "\n" not in str(failure.value)


def test_a_flipped_bit_in_the_vectors_is_found_by_verify(tmp_path):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(50))
    build_and_check(store, held_out=5)
    assert store.verify() == 2
    assert verify_store(str(tmp_path / "store")) == {"location": str(tmp_path / "store"), "rows": 50, "files": 2}
    path = tmp_path / "store" / "data-1" / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for check in (store.verify, lambda: verify_store(str(tmp_path / "store"))):
        with pytest.raises(InputError, match="checksum"):
            check()
    with pytest.raises(InputError, match="a database checks its own files"):
        verify_store("lance:folder#table")


def test_a_build_that_was_killed_before_its_rename_changes_nothing(tmp_path, monkeypatch):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(100))
    build_and_check(store, held_out=5)
    add_rows(store, small_rows(100).slice(0, 10))
    monkeypatch.setattr(OwnFiles, "_save", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.build("binary", lambda *_: None)
    monkeypatch.undo()
    store.close()
    again = OwnFiles.open(tmp_path / "store")
    assert again.meta.index == "exact" and again.count() == 100
    build_and_check(again, "binary", held_out=5)
    assert sorted(path.name for path in again.folder.iterdir() if not path.name.startswith(".")) == [
        "data-2",
        "staged",
        "store.json",
    ]


def test_one_process_changes_a_store(tmp_path):
    from filelock import FileLock

    store = OwnFiles.create(tmp_path / "store", META)
    with FileLock(tmp_path / "store" / ".lock"), pytest.raises(InputError, match="another process"):
        add_rows(store, small_rows(10))


def test_an_unbuilt_store_and_a_full_disk_are_one_line(tmp_path, monkeypatch):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(10))
    with pytest.raises(InputError, match="not been built"):
        search_store(store, vectors(1), 3)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(WorkError, match="no space left"):
        add_rows(store, small_rows(20))


@pytest.mark.parametrize("nested", [False, True])
def test_places_that_lead_out_of_the_file_are_damage(tmp_path, nested):
    """Reading such a text would end the process."""
    texts = [f"text {n}" for n in range(50)]
    column = pa.array([[text] for text in texts]) if nested else pa.array(texts)
    batch = pa.record_batch({"text": column})
    file = tmp_path / "rows.arrow"
    write_arrow(file, batch.schema, [batch])
    assert map_arrow(file).num_rows == 50
    texts = column.values if nested else column
    places = texts.buffers()[1].to_pybytes()[: 4 * 51]
    content = file.read_bytes()
    assert content.count(places) == 1
    file.write_bytes(content.replace(places, places[:40] + b"\xff\xff\xff\x7f" + places[44:]))
    with pytest.raises(InputError, match=r"rows\.arrow is damaged \(places of texts that run backward"):
        map_arrow(file)


@pytest.mark.parametrize(("name", "value"), [("through", [3]), ("count", "2"), ("data", 4), ("files", None)])
def test_a_state_of_other_types_is_damage(tmp_path, name, value):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(20))
    build_and_check(store)
    store.close()
    file = tmp_path / "store" / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(InputError, match=f"is damaged .{name} is"):
        OwnFiles.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gate": {"parameters": [{}]}}, "gate.parameters: "),
        ({"gate": {"queries": [4]}}, "gate.queries: "),
        ({"fields": {"group": "number"}}, "fields.group: "),
        ({"prompts": []}, "prompts: "),
        ({"dimension": "32"}, "dimension: "),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_a_description_of_other_types_is_damage(tmp_path, change, reason):
    store = OwnFiles.create(tmp_path / "store", META)
    add_rows(store, small_rows(20))
    build_and_check(store, held_out=5)
    store.close()
    file = tmp_path / "store" / "store.json"
    value = json.loads(file.read_text())
    gate = {"gate": value["gate"] | change["gate"]} if "gate" in change else {}
    file.write_text(json.dumps(value | change | gate))
    with pytest.raises(InputError, match=re.escape(f"is damaged ({reason}")) as failure:
        OwnFiles.open(tmp_path / "store")
    assert "\n" not in str(failure.value)

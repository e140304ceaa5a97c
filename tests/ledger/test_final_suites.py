"""A final suite is opened once per frozen recipe."""

import pytest

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.ledger import now, open_ledger
from gemma4vec.ledger.recording import freeze, lock, record_look
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.suite_access import REFERENCE, NamedSuite, Viewer, check_choice, may_see, spend


def run(name: str, recipe: str = "recipe") -> RunFolder:
    return RunFolder.create(home(), name, "name: x\n", recipe_id=recipe, status="finished")


def look(of: RunFolder, fingerprint: str, contents: str = "contents") -> None:
    settings = {
        "suite": {"fingerprint": contents, "role": "final"},
        "model_fingerprint": fingerprint,
        "created": now(),
        "look": f"look-{of.run_id}-{fingerprint}",
        "run": {"run_id": of.run_id, "recipe_id": of.manifest["recipe_id"]},
    }
    record_look("trained", "suite", settings, ["ndcg@10"])


def check(of: RunFolder | None, fingerprint: str = "m", role: str | None = "final", again: str = "") -> None:
    see(of, "contents", fingerprint, role, again)


def see(of: RunFolder | None, contents: str, fingerprint: str, role: str | None = None, again: str = "") -> None:
    viewer = Viewer(of.run_id, of.manifest["recipe_id"], fingerprint) if of else REFERENCE
    may_see(NamedSuite("suite", contents, role), viewer, again=again)


def test_only_a_frozen_recipe_may_be_looked_at() -> None:
    one = run("one")
    with pytest.raises(InputError, match=f"runs freeze {one.run_id}"):
        check(one)
    check(one, role="dev")
    check(one, role=None)
    check(None)  # a published model is a yardstick
    check(one, again="the reviewer asked")
    freeze(home(), "recipe", one.run_id, "")
    check(one)


def test_a_second_look_at_the_run_is_refused_and_another_seed_is_not() -> None:
    one, other = run("one"), run("other")
    freeze(home(), "recipe", one.run_id, "")
    look(one, "m")
    check(one, "m")  # the very same model: nothing new
    with pytest.raises(InputError, match="a final score is taken once"):
        check(one, "trained further")
    check(one, "trained further", again="the first was broken")
    check(other, "other seed")
    look(one, "elsewhere", "other contents")


def test_a_new_freeze_opens_it_for_no_run_that_was_looked_at() -> None:
    one, other = run("one"), run("other")
    freeze(home(), "recipe", one.run_id, "")
    look(one, "m")
    freeze(home(), "recipe", one.run_id, "")
    with pytest.raises(InputError, match="however often its recipe is frozen"):
        check(one, "trained further")
    check(other, "other seed")


def test_what_was_final_once_stays_it_without_anybody_saying_so() -> None:
    one, other = run("one"), run("other", "another recipe")
    check(other, role=None)
    freeze(home(), "recipe", one.run_id, "")
    look(one, "m")
    for role in (None, "dev"):
        with pytest.raises(InputError, match="final suite"):
            check(other, role=role)
        check(other, role=role, again="by mistake it was called final")
    lock(home(), "suite", "locked contents", "")
    with pytest.raises(InputError, match="final suite"):
        see(other, "locked contents", "m")


def test_the_freeze_of_another_recipe_opens_nothing() -> None:
    one = run("one")
    freeze(home(), "other", None, "")
    with pytest.raises(InputError, match="for frozen recipes only"):
        check(one)


def test_a_spent_suite_is_a_dev_suite_for_good() -> None:
    suite, one = NamedSuite("suite", "contents", "final"), run("one")
    with pytest.raises(InputError, match="say why a final suite is spent"):
        spend(suite, " ")
    with pytest.raises(InputError, match="is a final suite"):
        check_choice("inspect", suite)
    spend(suite, "its failures are needed")
    check_choice("inspect", suite)
    assert may_see(suite).final is None
    check(one)  # without a freeze
    look(one, "m")
    check(one, "trained further")
    with pytest.raises(InputError, match="is a final suite"):
        check_choice("inspect", NamedSuite("other", "other contents", "final"))
    spend(suite, "again")
    spend(NamedSuite("dev", "dev contents", "dev"), "nothing to spend")
    with open_ledger(home()) as ledger:
        assert ledger.value("SELECT count(*) FROM records WHERE kind = 'spent'") == 1

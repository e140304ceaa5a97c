"""Language detection by both methods."""

import pytest

from gemma4vec.data.ngrams.language import _load_py3langid, detect_by_stop_words, detection_method, make_detector

TEXTS = {
    "en": "This is what we have been looking for in all of the documents that were found.",
    "de": "Das ist es, wonach wir in allen Dokumenten gesucht haben, die gefunden wurden.",
    "fr": "C'est ce que nous avons cherché dans tous les documents qui ont été trouvés.",
    "es": "Esto es lo que hemos buscado en todos los documentos que se han encontrado.",
}


@pytest.mark.parametrize(("language", "text"), TEXTS.items())
def test_sentences(language, text):
    assert detect_by_stop_words(text) == language
    if detection_method() == "py3langid":
        assert _load_py3langid()(text) == language
    assert make_detector()(text) == language


@pytest.mark.parametrize("text", ["", "1234 5678 90", "short", "x = foo(bar)[0]; return x"])
def test_texts_that_are_no_sentences_are_undetermined(text):
    assert detect_by_stop_words(text) == "und" == make_detector()(text)


def test_py3langid_knows_scripts_that_stop_words_do_not():
    pytest.importorskip("py3langid")
    assert _load_py3langid()("これは日本語の文章です。とても短いです。") == "ja"
    assert detect_by_stop_words("これは日本語の文章です。とても短いです。") == "und"

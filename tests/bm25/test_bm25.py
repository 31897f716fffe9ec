"""What is ours: analyzers, statistics, settings, and a vocabulary that many share."""

import copy
import math
import pickle
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import mmh3
import numpy as np
import pytest
from support.processes import run_python

from fastrank.bm25 import BM25, LANGUAGES, BM25Index, analysis, array_file, weights, word_table
from fastrank.errors import ModelLoadError


def terms(bm25, text):
    """The ids of a document as a set."""
    ((ids, _),) = bm25.documents([text])
    return set(ids.tolist())


def ids_of(*words):
    return {abs(mmh3.hash(word)) for word in words}


class Vowelless:
    def stem_word(self, word):
        return "".join(letter for letter in word if letter not in "aeiou")


# -- weights --------------------------------------------------------------------------------------------------------

COLLIDING = "kitchens", "prostaglandins"


@pytest.mark.parametrize("counts", [(1, 2), (3, 1), (2, 5), (7, 3)])
def test_where_stems_share_an_id_their_counts_are_added(counts):
    bm25 = BM25(disable_stemmer=True)
    words = [word for word, count in zip(COLLIDING, counts, strict=True) for _ in range(count)]
    f, length = sum(counts), len(words) + 1
    expected = f * 2.2 / (f + 1.2 * (0.25 + 0.75 * length / 256))
    for order in (words, words[::-1], sorted(words)):
        ((ids, values),) = bm25.documents([" ".join([*order, "hello"])])
        assert ids.tolist() == [358434922, abs(mmh3.hash("hello"))]
        assert values[0] == pytest.approx(expected, rel=1e-14)


def test_no_texts_and_texts_without_words():
    bm25 = BM25()
    assert bm25.documents([]) == bm25.queries([]) == []
    for (ids, values), (query, ones) in zip(bm25.documents(["", "the"]), bm25.queries(["", "the"]), strict=True):
        assert [each.shape for each in (ids, values, query, ones)] == [(0,)] * 4
        assert [each.dtype for each in (ids, values, query, ones)] == [np.int64, np.float64, np.int64, np.int64]


def test_a_text_of_more_words_than_a_batch_has():
    words = weights._CHARACTERS * 2 + 5
    text = " ".join(f"w{number % 1000}" for number in range(words))
    short, long, last = BM25(disable_stemmer=True).documents(["a b", text, "c"])
    assert (len(short[0]), len(long[0]), len(last[0])) == (2, 1000, 1)
    assert long[0].tolist() == [abs(mmh3.hash(f"w{number}")) for number in range(1000)]
    f = -(-words // 1000)
    assert long[1][0] == pytest.approx(f * 2.2 / (f + 1.2 * (0.25 + 0.75 * words / 256)))


def test_more_texts_than_a_batch_has():
    texts = [f"word{number} word{number} other" for number in range(weights._BATCH * 2 + 1)]
    found = BM25(disable_stemmer=True).documents(texts)
    assert [ids.tolist() for ids, _ in found] == [
        [abs(mmh3.hash(f"word{number}")), abs(mmh3.hash("other"))] for number in range(len(texts))
    ]
    assert len({tuple(values.tolist()) for _, values in found}) == 1


def test_a_lone_surrogate_parts_words():
    assert terms(BM25(disable_stemmer=True), "one\ud800two") == ids_of("one", "two")


# -- statistics -----------------------------------------------------------------------------------------------------

CORPUS = ["the red fox", "a red dog ran", "dogs", ""]


def test_fit_finds_the_average_length_and_idf():
    bm25 = BM25(avg_len="auto")
    assert bm25.avg_len == "auto"
    assert bm25.fit(iter(CORPUS)) is bm25
    assert bm25.avg_len == (2 + 3 + 1 + 0) / 4
    red, fox, dog, new = (abs(mmh3.hash(word)) for word in ("red", "fox", "dog", "new"))
    expected = [math.log(1 + (4 - n + 0.5) / (n + 0.5)) for n in (2, 1, 2, 0)]
    assert bm25.statistics.idf(np.array([red, fox, dog, new])) == pytest.approx(expected)
    ((ids, values),) = bm25.documents(["red red"])
    assert ids.tolist() == [red]
    assert values[0] == pytest.approx(2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 2 / 1.5)))


def test_document_values_may_carry_the_idf():
    plain, heavy = BM25().fit(CORPUS), BM25(idf=True).fit(CORPUS)
    for (ids, values), (same, more) in zip(plain.documents(CORPUS), heavy.documents(CORPUS), strict=True):
        assert same.tolist() == ids.tolist()
        assert more == pytest.approx(values * plain.statistics.idf(ids))
    assert heavy.queries(["red"])[0][1].tolist() == [1]


def test_fitting_anew_forgets():
    bm25 = BM25().fit(CORPUS)
    assert bm25.fit(["one two"]).statistics.documents == 1
    assert bm25.avg_len == 2


@pytest.mark.parametrize("options", [{"avg_len": "auto"}, {"idf": True}])
def test_statistics_that_are_asked_for_must_be_there(options):
    with pytest.raises(ValueError, match=r"needs the statistics of a corpus: call fit\(corpus\) first"):
        BM25(**options).documents(["x"])


@pytest.mark.parametrize("corpus", [[], ["", "the"]])
def test_a_corpus_without_words_has_no_statistics(corpus):
    with pytest.raises(ValueError, match="without a single word"):
        BM25().fit(corpus)


def test_a_corpus_is_made_of_strings():
    with pytest.raises(TypeError, match=r"corpus\[1\] must be a string, not NoneType"):
        BM25().fit(["a", None])


def test_statistics_grow_document_by_document():
    whole, grown = BM25(avg_len="auto", idf=True).fit(CORPUS), BM25(avg_len="auto", idf=True)
    for text in CORPUS:
        grown.partial_fit(text)
    assert (grown.statistics, grown.avg_len) == (whole.statistics, whole.avg_len)
    assert grown.documents(CORPUS)[0][1].tolist() == whole.documents(CORPUS)[0][1].tolist()
    assert grown.partial_fit(iter(CORPUS)) is grown
    assert grown.statistics.documents == 2 * len(CORPUS)


def test_a_bad_item_adds_nothing_to_the_statistics():
    bm25 = BM25().fit(CORPUS)
    before = copy.deepcopy(bm25.statistics)
    with pytest.raises(TypeError, match=r"corpus\[1\] must be a string"):
        bm25.partial_fit(["new", None])
    with pytest.raises(TypeError, match=r"corpus\[1\] must be a string"):
        bm25.fit(["new", None])
    assert bm25.statistics == before


def test_documents_without_words_can_begin_the_statistics():
    bm25 = BM25(avg_len="auto").partial_fit(["", "the"])
    assert bm25.avg_len == "auto"
    with pytest.raises(ValueError, match="needs the statistics of a corpus"):
        bm25.documents(["x"])
    assert bm25.partial_fit("fox").avg_len == 1 / 3


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"language": "german", "k": 2, "stopwords": {"Haus"}, "analyzer": "code", "strip_accents": True}, {}),
        ({"idf": True, "avg_len": "auto", "dimensions": 1000}, {}),
        ({}, {"stemmer": Vowelless}),
        ({}, {"analyzer": lambda: str.split}),
    ],
)
@pytest.mark.parametrize("fitted", [False, True])
def test_a_saved_bm25_gives_the_same(tmp_path, options, code, fitted):
    own = {name: make() for name, make in code.items()}
    bm25 = BM25(**options, **own)
    if fitted:
        bm25.fit(CORPUS)
    bm25.save(tmp_path / "bm25")
    other = BM25.load(tmp_path / "bm25", **own)
    assert other.settings() == bm25.settings()
    assert other.statistics == bm25.statistics
    if fitted:
        assert other.documents(CORPUS)[0][1].tolist() == bm25.documents(CORPUS)[0][1].tolist()
        assert other.partial_fit("red").statistics.documents == len(CORPUS) + 1
    if own:
        with pytest.raises(ValueError, match="of your own"):
            BM25.load(tmp_path / "bm25")


def test_statistics_are_loaded_into_an_instance_with_the_same_terms(tmp_path):
    path = tmp_path / "bm25"
    saved = BM25(avg_len="auto").fit(CORPUS)
    saved.save(path)
    other = BM25(k=2, avg_len="auto").load_statistics(path)
    assert (other.k, other.statistics) == (2, saved.statistics)
    with pytest.raises(ValueError, match="of other terms: these settings differ: language, dimensions"):
        BM25("german", dimensions=9).load_statistics(path)
    with pytest.raises(ValueError, match="was not built with an analyzer of your own"):
        BM25(analyzer=str.split).load_statistics(path)


@pytest.mark.parametrize(
    ("header", "arrays", "message"),
    [
        ({"documents": 1}, {}, "do not fit together"),
        ({"words": 2}, {}, "do not fit together"),
        ({"words": "3"}, {}, "do not fit together"),
        ({"documents": True}, {}, "do not fit together"),
        ({}, {"ids": np.array([5, 5], np.uint32)}, "not distinct ids"),
        ({}, {"ids": np.array([5, 2**31 + 1], np.uint32)}, "not distinct ids"),
        ({}, {"ids": np.array([5], np.uint32)}, "do not fit together"),
        ({}, {"frequencies": np.array([0, 1], np.uint32)}, "do not fit together"),
        ({}, {"frequencies": np.array([1.0, 1.0], np.float32)}, "frequencies is <f4, expected <u4"),
        ({"settings": None}, {}, "settings are not those of BM25"),
    ],
)
def test_statistics_that_contradict_themselves_are_refused(tmp_path, header, arrays, message):
    path = tmp_path / "bm25"
    BM25().fit(["red fox", "red"]).save(path)
    old, stored = array_file.read(path, weights.FORMAT, weights.VERSION)
    array_file.write(path, weights.FORMAT, weights.VERSION, {**old, **header}, {**stored, **arrays})
    with pytest.raises(ModelLoadError, match=message):
        BM25.load(path)


def test_an_index_is_not_statistics(tmp_path):
    BM25Index.build(["fox"]).save(tmp_path / "index")
    with pytest.raises(ModelLoadError, match="version 2 of the format, this fastrank reads 1"):
        BM25.load(tmp_path / "index")


# -- dimensions -----------------------------------------------------------------------------------------------------


def test_ids_can_be_folded_into_what_a_store_holds():
    words = [f"word{number}" for number in range(3000)]
    for bm25 in (BM25(dimensions=1000), BM25(dimensions=1000, analyzer=str.split)):
        ((ids, values),) = bm25.documents([" ".join(words)])
        ((query, ones),) = bm25.queries([" ".join(words)])
        assert set(ids.tolist()) == {abs(mmh3.hash(word)) % 1000 for word in words} == set(query.tolist())
        assert ones.tolist() == [1] * len(query)
        f = Counter(abs(mmh3.hash(word)) % 1000 for word in words)
        expected = [f[each] * 2.2 / (f[each] + 1.2 * (0.25 + 0.75 * 3000 / 256)) for each in ids.tolist()]
        assert values == pytest.approx(expected, rel=1e-14)  # counts of terms that share an id are added


@pytest.mark.parametrize("dimensions", [1_000_000_000, 2**31 + 1])
def test_dimensions_that_hold_an_id_do_not_change_it(dimensions):
    assert terms(BM25(dimensions=dimensions), "hello world") == ids_of("hello", "world")


@pytest.mark.parametrize(
    ("dimensions", "error"), [(0, ValueError), (2**31 + 2, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_dimensions_are_checked(dimensions, error):
    with pytest.raises(error, match="dimensions must be"):
        BM25(dimensions=dimensions)


# -- analyzers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u0ba8\u0bbe\u0b99\u0bcd\u0b95\u0bb3\u0bcd \u0bb5\u0bbe\u0bb0\u0bc1\u0b99\u0bcd\u0b95\u0bb3\u0bcd", 2),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e", 2),
        ("e\u0301cole, na\u0308ive", 2),
        ("\u0130stanbul", 1),
        ("\u2260 a \u2026 b\u00a0c", 3),
        ("\u0301 \ufe0f \u200d", 0),
    ],
)
def test_the_unicode_analyzer_keeps_words_whole(text, words):
    bm25 = BM25(None, analyzer="unicode")
    assert len(terms(bm25, text)) == bm25.token_count([text]) == words


def test_fastembeds_analyzer_does_not():
    assert len(terms(BM25("tamil"), "\u0ba8\u0bbe\u0b99\u0bcd\u0b95\u0bb3\u0bcd")) > 1


@pytest.mark.parametrize("analyzer", ["unicode", "bigram"])
@pytest.mark.parametrize(
    "text",
    ["\u00c9cole na\u00efve", "\ud55c\uad6d\uc5b4 \uac00", "\u30ac\u30ae\u30b0", "\u2260x \u226ey", "\u1eaf\u1e69"],
)
def test_normal_forms_are_equal(analyzer, text):
    bm25 = BM25(analyzer=analyzer)
    found = [terms(bm25, unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert found[0]
    assert found.count(found[0]) == 4


def test_letters_that_look_alike_are_one():
    bm25 = BM25(analyzer="unicode")
    assert terms(bm25, "\ufb01nance \uff21\uff22\uff23") == terms(bm25, "finance abc")
    assert terms(bm25, "\u0130stanbul") == terms(bm25, "istanbul")
    assert terms(BM25(), "\u0130stanbul") != terms(BM25(), "istanbul")


def test_turkish_lower_case_is_turkish():
    turkish = BM25("turkish", disable_stemmer=True, analyzer="unicode")
    assert terms(turkish, "KIRMIZI \u0130\u015e") == terms(turkish, "k\u0131rm\u0131z\u0131 i\u015f")
    english = BM25(analyzer="unicode", disable_stemmer=True)
    assert terms(english, "KIRMIZI") == terms(english, "kirmizi")


def test_named_analyzers_stem_and_leave_out_stop_words():
    for analyzer in ("unicode", "bigram"):
        assert terms(BM25(analyzer=analyzer), "The foxes _ were running") == ids_of("fox", "run")
        assert terms(BM25("german", analyzer=analyzer), "f\u00fcr die H\u00e4user") == ids_of("haus")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u6211\u7231\u5317\u4eac", ["\u6211\u7231", "\u7231\u5317", "\u5317\u4eac"]),
        ("\u4e2d", ["\u4e2d"]),
        ("\u4e2d, \u6587", ["\u4e2d", "\u6587"]),
        ("GPT\u6a21\u578b3", ["gpt", "\u6a21\u578b", "3"]),
        ("\u30ab\u30ca", ["\u30ab\u30ca"]),
        ("\u0e07\u0e48\u0e32\u0e22", ["\u0e07\u0e48\u0e32", "\u0e32\u0e22"]),  # a consonant and its tone mark are one
    ],
)
def test_bigrams(text, expected):
    assert terms(BM25(None, analyzer="bigram"), text) == ids_of(*expected)


def test_single_characters_beside_bigrams():
    bm25 = BM25(None, analyzer="unigram+bigram")
    expected = ["\u6211", "\u7231", "\u5317", "\u4eac", "\u6211\u7231", "\u7231\u5317", "\u5317\u4eac", "gpt", "3"]
    assert terms(bm25, "\u6211\u7231\u5317\u4eac GPT 3") == ids_of(*expected)
    assert terms(bm25, "\u0e07\u0e48\u0e32") == ids_of("\u0e07\u0e48", "\u0e32", "\u0e07\u0e48\u0e32")
    assert terms(bm25, "\u4e2d") == ids_of("\u4e2d")
    assert BM25Index.build(["\u5317\u4eac"], language=None, analyzer="unigram+bigram").search("\u4eac")[0].tolist() == [
        0
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parse_http_response", ["parsehttpresponse", "parse", "http", "response"]),
        ("parseHTTPResponse", ["parsehttpresponse", "parse", "http", "response"]),
        ("ParseHttpResponse()", ["parsehttpresponse", "parse", "http", "response"]),
        ("PARSE_HTTP_RESPONSE", ["parsehttpresponse", "parse", "http", "response"]),
        ("__init__", ["init"]),
        ("_", []),
        ("np.zeros_like(x)", ["np", "zeroslike", "zeros", "like", "x"]),
        ("utf8Decoder base64", ["utf8decoder", "utf8", "decoder", "base64"]),
        ("gr\u00f6\u00dfeMessen \u00c9cole", ["gr\u00f6\u00dfemessen", "gr\u00f6\u00dfe", "messen", "\u00e9cole"]),
        ("a=b+c", ["a", "b", "c"]),
        ("HTTP2Server", ["http2server", "http2", "server"]),
        ("get\u00c9tat", ["get\u00e9tat", "get", "\u00e9tat"]),
        ("\u4e2d\u6587Name", ["\u4e2d\u6587name", "\u4e2d\u6587", "name"]),
    ],
)
def test_code_is_found_whole_and_in_parts(text, expected):
    bm25 = BM25(None, analyzer="code")
    assert terms(bm25, text) == ids_of(*expected)
    assert bm25.token_count([text]) == len(expected)


def test_parts_of_code_are_stemmed_and_leave_out_stop_words():
    assert terms(BM25(analyzer="code"), "is_readyForTokens") == ids_of("isreadyfortoken", "readi", "token")


@pytest.mark.parametrize("analyzer", analysis.ANALYZERS)
def test_accents_can_be_stripped(analyzer):
    plain, accents = BM25(None, analyzer=analyzer), BM25(None, analyzer=analyzer, strip_accents=True)
    text = "\u00e9cole na\u00efve stra\u00dfe sm\u00f8rrebr\u00f8d \u0142\u00f3d\u017a \u03ac\u03bb\u03c6\u03b1"
    bare = "ecole naive strasse smorrebrod lodz \u03b1\u03bb\u03c6\u03b1"
    assert terms(accents, text) == terms(accents, bare) == terms(plain, bare) != terms(plain, text)
    assert terms(accents, unicodedata.normalize("NFD", text)) == terms(plain, bare)


@pytest.mark.parametrize(
    "text",
    [
        "\u043c\u043e\u0439",  # \u0439 is a letter of its own
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u0ba8\u0bbe\u0b99\u0bcd",
        "\u30ac\u30ae",
        "\ud55c\uad6d",
        "\u0e07\u0e48\u0e32\u0e22",
        "\u05e9\u05c1",
    ],
)
def test_signs_that_are_no_accents_stay(text):
    assert terms(BM25(None, analyzer="unicode", strip_accents=True), text) == terms(
        BM25(None, analyzer="unicode"), text
    )


def test_accents_go_before_stop_words_and_stems():
    bm25 = BM25("spanish", analyzer="unicode", strip_accents=True)
    assert terms(bm25, "\u00e9l canciones canci\u00f3n") == terms(bm25, "el canciones cancion")
    assert terms(bm25, "\u00e9l tambi\u00e9n tambien") == set()


def test_a_long_run_without_spaces_is_not_kept():
    bm25 = BM25("chinese", analyzer="bigram")
    before = len(bm25._analysis)
    text = "".join(chr(0x4E00 + number) for number in range(200))
    assert len(terms(bm25, text)) == 199
    assert len(bm25._analysis) == before


def test_an_analyzer_of_ones_own_is_final():
    bm25 = BM25(analyzer=lambda text: text.split("|"))
    ((ids, values),) = bm25.documents(["The|The Foxes||" + "x" * 50])
    assert ids.tolist() == [abs(mmh3.hash(term)) for term in ("The", "The Foxes", "x" * 50)]
    assert values[0] == pytest.approx(2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / 256)))
    assert bm25.token_count(["a|b", "c"]) == 3


def test_a_lone_surrogate_in_a_term_of_ones_own_is_a_question_mark():
    """mmh3 5 ends the process at one."""
    assert BM25(analyzer=str.split).token_ids("a\ud800 b") == [abs(mmh3.hash("a?")), abs(mmh3.hash("b"))]


def test_a_stemmer_of_ones_own():
    bm25 = BM25("klingon", stemmer=Vowelless())
    assert terms(bm25, "the red aeiou") == ids_of("th", "rd")
    assert terms(BM25("english", stemmer=Vowelless()), "the red") == ids_of("rd")
    assert terms(BM25("klingon", stemmer=Vowelless(), stopwords={"RED"}), "the red") == ids_of("th")


# -- settings -------------------------------------------------------------------------------------------------------


def test_an_unknown_language_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="polish language is not supported") as raised:
        BM25("polish")
    assert all(language in str(raised.value) for language in LANGUAGES)
    with pytest.raises(ValueError, match="englsh"):
        BM25("englsh", analyzer="unicode")


@pytest.mark.parametrize(
    "options",
    [
        {"language": None},
        {"language": "polish", "disable_stemmer": True},
        {"language": "chinese", "analyzer": "bigram"},
        {"language": "thai", "analyzer": str.split},
    ],
)
def test_languages_without_a_stemmer_are_a_choice(options):
    assert terms(BM25(**options), "the foxes") == ids_of("the", "foxes")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"disable_stemmer": True, "stemmer": Vowelless()}, ValueError, "stemmer cannot be supplied with disable_stem"),
        ({"stemmer": "english"}, TypeError, "stemmer must be an object with a method stem_word, not str"),
        ({"stopwords": "the"}, TypeError, "stopwords must be a collection of words, not str"),
        ({"analyzer": "trigram"}, ValueError, "analyzer must be None, a function, or one of unicode, bigram, unigram"),
        ({"analyzer": str.split, "stopwords": {"a"}}, ValueError, "its terms are final"),
        ({"k": -1}, ValueError, "k must be >= 0"),
        ({"k": float("nan")}, ValueError, "k must be >= 0"),
        ({"b": 1.5}, ValueError, "b must be between 0 and 1"),
        ({"avg_len": 0}, ValueError, "avg_len must be > 0"),
        ({"token_max_length": 0}, ValueError, "token_max_length must be >= 1"),
        ({"strip_accents": True}, ValueError, "strip_accents needs an analyzer by name"),
        ({"strip_accents": True, "analyzer": str.split}, ValueError, "strip_accents needs an analyzer by name"),
    ],
)
def test_settings_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        BM25(**options)


@pytest.mark.parametrize(
    "bm25",
    [
        BM25(),
        BM25("german", k=2, b=0.1, avg_len=9, token_max_length=5, stopwords={"Haus"}, analyzer="unicode"),
        BM25(stemmer=Vowelless()),
        BM25(analyzer=str.split, avg_len="auto", idf=True).fit(CORPUS),
    ],
    ids=repr,
)
def test_pickles_are_small_and_give_the_same(bm25):
    texts = ["Die H\u00e4user were running", *CORPUS]
    before = [(ids.tolist(), values.tolist()) for ids, values in bm25.documents(texts)]
    for other in (pickle.loads(pickle.dumps(bm25)), copy.deepcopy(bm25)):  # noqa: S301 - our own bytes
        assert [(ids.tolist(), values.tolist()) for ids, values in other.documents(texts)] == before
        assert (other.avg_len, other.settings().keys()) == (bm25.avg_len, bm25.settings().keys())
    assert len(pickle.dumps(bm25)) < 2000


# -- the vocabulary -------------------------------------------------------------------------------------------------


def test_equal_settings_share_a_vocabulary():
    assert BM25(k=2)._analysis is BM25(b=0.1, avg_len=3)._analysis
    assert BM25()._analysis is not BM25("german")._analysis


def test_a_word_is_stemmed_once():
    class Counting:
        def __init__(self):
            self.seen = []

        def stem_word(self, word):
            self.seen.append(word)
            return word

    stemmer = Counting()
    bm25 = BM25(stemmer=stemmer)
    bm25.documents(["fox fox fox", "fox \u00e9t\u00e9"])
    bm25.queries(["fox, \u00e9t\u00e9-\u00e9t\u00e9", "\u00c9t\u00e9"])
    assert sorted(stemmer.seen) == ["fox", "\u00e9t\u00e9"]


def test_the_vocabulary_is_bounded(monkeypatch):
    monkeypatch.setattr(analysis, "_MAX_PIECES", 50)
    bm25 = BM25(stemmer=Vowelless())
    plain = [f"word{number} w\u00f6rter{number}" for number in range(500)]
    first = [ids.tolist() for ids, _ in bm25.documents(plain)]
    assert max(len(bm25._analysis), len(bm25._analysis._term_ids)) <= 50
    assert [ids.tolist() for ids, _ in bm25.documents(plain)] == first
    assert len({tuple(ids) for ids in first}) == 500


@pytest.mark.parametrize("letter", ["x", "\u00e9"])
def test_huge_words_are_not_kept(letter):
    bm25 = BM25(stemmer=Vowelless(), token_max_length=10**6)
    assert len(terms(bm25, letter * 10**5)) == 1
    assert len(bm25._analysis) == len(bm25._analysis._term_ids) == 0


def test_many_threads_get_what_one_gets():
    texts = [f"thread{number % 97} l\u00e4uft{number % 89}\u2014w\u00f6rter run{number}" for number in range(4000)]
    expected = [ids.tolist() for ids, _ in BM25(stemmer=Vowelless()).documents(texts)]
    shared = BM25(stemmer=Vowelless())
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(shared.documents, [texts] * 16):
            assert [ids.tolist() for ids, _ in found] == expected


# -- batches: words looked up in a table ----------------------------------------------------------------------------

MANY = [
    "The quick brown fox; jumps-over 17 lazy dogs!",
    "",
    "   ",
    "a",
    "x" * 16 + " " + "x" * 17 + " " + "x" * 8 + " " + "x" * 9 + " " + "y" * 200,
    "caf\u00e9 \u2014 na\u00efve\u2014approach \u4f60\u597d\u4e16\u754c",
    "caf\u00e9\u2014bar",  # one piece of two words
    "\u2014 \u2014\u2014",  # pieces of none
    "nul\0byte tab\tnewline\nend \ud800 lone",
    "_ __ a_b " + "z" * 41,
    "I\u0307stanbul ISPARTA",
    " ".join(f"w{number}" for number in range(3000)),
]


@pytest.mark.parametrize("analyzer", [None, *analysis.ANALYZERS])
@pytest.mark.parametrize("language", ["english", "turkish"])
def test_a_table_of_words_finds_what_single_look_ups_find(monkeypatch, analyzer, language):
    monkeypatch.setattr(analysis, "_MIN_TABLE_CHARACTERS", 0)
    monkeypatch.setattr(analysis, "_MIN_TABLE_PIECES", 0)
    analysis.forget()
    bm25, alone = BM25(language, analyzer=analyzer), BM25(language, analyzer=analyzer)
    texts = [MANY[number] for number in np.random.default_rng(0).permutation(len(MANY) * 5) % len(MANY)]
    expected = [alone.token_ids(text) for text in texts]
    for batch in (texts[:7], texts, texts[::-1], [""], texts[3:4], []):
        ids, sizes = bm25._analysis.batch(batch)
        assert (ids.dtype, len(sizes), sum(sizes)) == (np.int64, len(batch), len(ids))
        found = [part.tolist() for part in np.split(ids, np.cumsum(sizes))[: len(batch)]]
        assert found == [expected[texts.index(text)] for text in batch]
    analysis.forget()


def test_words_that_share_a_slot_keep_their_ids():
    words = {f"w{number}".encode(): number for number in range(5000)}
    table = word_table.WordTable(words)
    for bits in (1, 4):
        table._shift = np.uint64(64 - bits)  # two or sixteen slots for all: most hold another word
        found = table.find(b" ".join(words))
        known = np.setdiff1d(np.arange(5000), found.unknown)
        assert found.ids[known].tolist() == known.tolist()
    assert len(word_table.WordTable(words).find(b" ".join(words)).unknown) < 2000


def test_a_table_of_no_words_knows_none():
    found = word_table.WordTable({}).find(b"some words")
    assert found.unknown.tolist() == [0, 1]
    assert [found.starts.tolist(), found.stops.tolist()] == [[0, 5], [4, 10]]
    assert word_table.WordTable({}).find(b"").starts.tolist() == []


def test_batches_of_many_threads_while_the_table_is_made_anew(monkeypatch):
    monkeypatch.setattr(analysis, "_MIN_TABLE_CHARACTERS", 0)
    monkeypatch.setattr(analysis, "_MIN_TABLE_PIECES", 10)
    monkeypatch.setattr(analysis, "_MAX_PIECES", 300)
    texts = [" ".join(f"word{(number * 7 + more) % 500}" for more in range(9)) for number in range(200)]
    shared = BM25(stemmer=Vowelless(), stopwords=[], token_max_length=50, language=None)
    expected = [shared.token_ids(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for ids, sizes in pool.map(shared._analysis.batch, [texts, texts[::-1]] * 20):
            found = [part.tolist() for part in np.split(ids, np.cumsum(sizes))[:200]]
            assert found in (expected, expected[::-1])


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, fastrank.bm25 as m; heavy = {'numpy', 'mmh3', 'py_rust_stemmers', 'onnxruntime', 'tokenizers'}; "
        "assert not heavy & set(sys.modules); m.BM25().documents(['x']); "
        "assert not {'onnxruntime', 'tokenizers', 'huggingface_hub', 'tqdm'} & set(sys.modules); print('fine')"
    )
    assert run_python("-c", code, check=True).stdout == "fine\n"

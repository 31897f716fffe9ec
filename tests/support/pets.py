"""A collection of three documents in the layout of BEIR."""

import json

CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "purr"},
    {"_id": "d2", "title": "", "text": "dogs bark "},
    {"_id": 3, "text": "birds\u2028sing"},
]
QUERIES = [{"_id": "q1", "text": "cats"}, {"_id": "q2", "text": "dogs"}, {"_id": "d1", "text": "not judged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_pets(root):
    """Write it into a new folder, which is returned."""
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(lines(CORPUS) + "\n", encoding="utf-8")
    (root / "queries.jsonl").write_text(lines(QUERIES), encoding="utf-8")
    (root / "qrels" / "test.tsv").write_text(QRELS, encoding="utf-8")
    return root

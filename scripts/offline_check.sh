#!/usr/bin/env bash
# Show that wheels are enough. With a network: wheels of fastrank, its dependencies and two packed models. Then without:
# a new virtual environment, `pip install --no-index`, dense vectors, BM25, hybrid and cross-encoder reranking, hashes;
# and the same in a sandbox like AWS Lambda's, where the sizes must fit. Run it from an environment with .[test].
set -euo pipefail
cd "$(dirname "$0")/.."

MODEL=sentence-transformers/all-MiniLM-L6-v2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/home"

echo "== wheels of fastrank, its dependencies, $MODEL and a tiny cross-encoder"
pip wheel --quiet -w "$work/wheels" .
python -m fastrank pack "$MODEL" -o "$work/wheels"
PYTHONPATH=tests python -c 'import sys; from support import tiny_models as t; t.write_model(sys.argv[1], t.tiny_cross_encoder())' "$work/judge"
python -m fastrank pack acme/judge --path "$work/judge" --like Xenova/ms-marco-MiniLM-L-6-v2 -o "$work/wheels"
python -m fastrank pack "$MODEL" --format zip -o "$work"

# No network: a namespace that has none, or where that is not allowed a proxy that refuses.
alone=(unshare --user --map-root-user --net)
"${alone[@]}" true 2>/dev/null || alone=(env http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 no_proxy=)
alone+=(env -u FASTRANK_CACHE -u XDG_CACHE_HOME -u PYTHONPATH HOME="$work")

echo "== without a network: ${alone[0]}"
python3 -m venv "$work/venv"
PIP_CONFIG_FILE=/dev/null "${alone[@]}" "$work/venv/bin/pip" install --quiet --no-index --find-links "$work/wheels" \
    fastrank-onnx fastrank-model-sentence-transformers-all-minilm-l6-v2 fastrank-model-acme-judge
here() { (cd "$work/home" && "${alone[@]}" HOME="$work/home" "$work/venv/bin/fastrank" "$@"); }
question="a machine that longs for company"
here embed "$work/venv"/lib/python3*/site-packages/fastrank/cli/films.txt -o "$work/vectors.npy"
python -c 'import numpy, sys; v = numpy.load(sys.argv[1]); assert v.shape == (20, 384) and abs((v * v).sum(1) - 1).max() < 1e-5' "$work/vectors.npy"
for method in bm25 dense hybrid; do
    here rerank "$question" --sample --top-k 1 --method $method | tee "$work/best"
    [ $method = bm25 ] || grep -q "robot learns to feel lonely" "$work/best"
done
here rerank "$question" --sample --method cross-encoder --model acme/judge | tail -n 1 | grep '"rank": 20'
here verify
[ -z "$(ls -A "$work/home")" ] || { echo "something was written to the home folder:" && find "$work/home" && exit 1; }

echo "== sizes"
pip install --quiet --no-index --no-compile --find-links "$work/wheels" --target "$work/base" fastrank-onnx
python scripts/size.py "$work/base" --limit 170
scripts/strip.sh "$work/base"
python scripts/size.py "$work/base" --limit 110

echo "== in a sandbox like AWS Lambda's"
python -m zipfile -e "$work"/*.zip "$work/opt"
status=0
scripts/lambda_sandbox.sh "$work/base" --layer "$work/opt" -m fastrank rerank "$question" --sample --top-k 1 |
    tee "$work/best" || status=$?
if [ $status = 77 ]; then
    echo "not checked: no sandbox can be made here"
else
    [ $status = 0 ] && grep -q "robot learns to feel lonely" "$work/best"
fi

#!/bin/sh
# Remove from a `pip install --target` folder what running models does not need: tests, type stubs, onnxruntime's tools
# for making models and its second copy for C programs, numpy's for Fortran, the fast downloader.
#
#   scripts/strip.sh FOLDER
set -eu
cd "$1"
rm -rf hf_xet hf_xet-*.dist-info onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
    onnxruntime/datasets onnxruntime/capi/libonnxruntime.so* numpy/f2py
find . -type d -name tests -prune -exec rm -rf {} +
find . -name '*.pyi' -delete

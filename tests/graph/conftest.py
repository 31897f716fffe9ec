import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must precede the import of onnxruntime
